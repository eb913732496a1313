import { type Browser, chromium } from '@playwright/test'
import { afterAll, beforeAll, beforeEach } from 'vitest'
import { find, needs } from './programs.js'

/** Chromium for the tests around it, which are skipped, with the reason, where it is missing. */
export function useChromium(): () => Browser {
  let browser: Browser | undefined
  beforeAll(async () => {
    const executablePath = find('chromium')
    if (executablePath) browser = await chromium.launch({ executablePath })
  })
  beforeEach((context) => needs(context, 'chromium'))
  afterAll(() => browser?.close())
  return () => browser as Browser
}
