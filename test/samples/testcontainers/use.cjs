const { PipeContainer } = require('pipe-tunnel/testcontainers')

process.stdout.write(new PipeContainer().withPorts(3).constructor.name)
