// @ts-check
/** `ssh -R`, through an sshd of its own with keys of its own. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { userInfo } from 'node:os'
import path from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { hasEnded, makeFolder, removeFolder } from '../processes.js'
import { OVERTIME, run, start, startServer } from '../programs.js'

/** How long it may take to log in, in milliseconds. */
const LOGIN_TIMEOUT = 10_000

/** @type {import('./index.js').Way} */
export const ssh = {
  async start({ target, link = async (port) => port }) {
    const folder = makeFolder()
    const [hostKey, userKey] = [path.join(folder, 'host'), path.join(folder, 'user')]
    for (const key of [hostKey, userKey]) {
      await run('ssh-keygen', ['-q', '-t', 'ed25519', '-N', '', '-f', key], OVERTIME)
    }
    // Debian's sshd wants this folder, which starting it as a service makes.
    if (process.getuid?.() === 0) mkdirSync('/run/sshd', { recursive: true, mode: 0o755 })
    const sshd = await startServer('sshd', (port) => {
      const file = path.join(folder, `sshd-${port}.conf`)
      writeFileSync(file, configuration({ port, hostKey, userKey }))
      return ['-D', '-e', '-f', file]
    })
    const client = start('ssh', clientArguments({ target, userKey, port: await link(sshd.port) }))
    const stop = async () => {
      await client.stop()
      await sshd.stop()
      removeFolder(folder)
    }
    try {
      return { port: await allocatedPort(client), pids: [sshd.pid, client.pid], stop }
    } catch (error) {
      await stop()
      throw error
    }
  },
}

/** @param {{ port: number, hostKey: string, userKey: string }} options */
function configuration({ port, hostKey, userKey }) {
  return [
    `ListenAddress 127.0.0.1:${port}`,
    `HostKey ${hostKey}`,
    `AuthorizedKeysFile ${userKey}.pub`,
    'StrictModes no',
    'UsePAM no',
    'PidFile none',
    'PermitRootLogin prohibit-password',
    '',
  ].join('\n')
}

/** @param {{ target: number, userKey: string, port: number }} options */
function clientArguments({ target, userKey, port }) {
  const options = [
    'BatchMode=yes',
    'ExitOnForwardFailure=yes',
    'IdentitiesOnly=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
  ]
  return [
    ...['-F', 'none', '-N', '-i', userKey, ...options.flatMap((option) => ['-o', option])],
    ...['-R', `127.0.0.1:0:127.0.0.1:${target}`, '-p', `${port}`, `${userInfo().username}@127.0.0.1`],
  ]
}

/**
 * The public port, which ssh tells when it is open.
 *
 * @param {ReturnType<typeof start>} client
 */
async function allocatedPort({ child, output }) {
  const until = performance.now() + LOGIN_TIMEOUT
  while (!hasEnded(child) && performance.now() < until) {
    const allocated = /Allocated port (\d+)/.exec(output.stderr)
    if (allocated) return Number(allocated[1])
    await wait(20)
  }
  throw new Error(`ssh does not get in: ${output.stderr.trim().slice(-300)}`)
}
