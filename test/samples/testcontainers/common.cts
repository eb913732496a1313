import { PipeContainer } from 'pipe-tunnel/testcontainers'

export const container = new PipeContainer().withPorts(3)
