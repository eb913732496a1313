import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url))

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Deadlines, not expectations: tests must pass on a slow machine under load.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    reporters: process.env.CI ? ['verbose', 'json'] : ['default', 'json'],
    outputFile: { json: 'test-results.json' },
    execArgv: ['--expose-gc'],
  },
  resolve: {
    alias: {
      'pipe-tunnel/node-test': at('./fixtures/node-test.ts'),
      'pipe-tunnel/vitest': at('./fixtures/vitest.ts'),
      'pipe-tunnel/webhooks': at('./fixtures/webhooks/index.ts'),
      'pipe-tunnel/testcontainers': at('./fixtures/testcontainers.ts'),
      'pipe-tunnel': at('./src/index.ts'),
    },
  },
})
