export default { test: { include: ['vitest/global-*.spec.ts'], globalSetup: ['pipe-tunnel/vitest-global'] } }
