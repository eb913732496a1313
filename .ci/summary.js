/**
 * Ends a test run: tells what was skipped and why, and last how many tests passed, failed and were skipped.
 * Ends with 1 unless all of it went well.
 *
 *     node .ci/summary.js STATUS LOG
 *
 * The counts are from the runner's result file. That has no reasons, which are taken from the log, and knows
 * nothing of errors outside of tests, which the exit status of the run tells.
 */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { stripVTControlCharacters } from 'node:util'

const RESULTS = 'test-results.json'

const [status, log] = process.argv.slice(2)
const files = readResults()
const tests = files.flatMap((file) => file.assertionResults)

const skipped = tests.filter((test) => test.status !== 'passed' && test.status !== 'failed')
const passed = tests.filter((test) => test.status === 'passed').length
let failed = tests.filter((test) => test.status === 'failed').length

for (const file of files) {
  const { name, message, assertionResults } = file
  // A file that breaks outside of its tests is a failure that no test shows.
  if (file.status === 'failed' && !assertionResults.some((test) => test.status === 'failed')) {
    failed++
    say(`failed: ${path.relative('', name)}: ${message}`)
  }
}
if (failed === 0 && (status !== '0' || passed === 0)) {
  failed++
  say(`failed: the run ended with ${status}, ${passed} passed tests and no failed one: see the errors above`)
}

for (const line of reasons()) say(`skipped: ${line}`)
say(`${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ''}`)
process.exitCode = failed === 0 ? 0 : 1

function readResults() {
  try {
    return JSON.parse(readFileSync(RESULTS, 'utf8')).testResults
  } catch (error) {
    say(`There are no results: ${error.message}`)
    return []
  }
}

/** The lines of skipped tests, as the verbose reporter prints them. */
function reasons() {
  const lines = stripVTControlCharacters(readFileSync(log, 'utf8')).split(/\r?\n/)
  const found = lines.filter((line) => line.startsWith(' ↓ ')).map((line) => line.slice(3))
  return found.length > 0 ? found : skipped.map((test) => test.fullName)
}

function say(line) {
  process.stdout.write(`${line}\n`)
}
