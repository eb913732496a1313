import { forward } from '../forward.js'
import { invalidOption } from '../options.js'
import { type LocalArguments, readLocalArguments, run } from './run.js'

interface ForwardArguments extends LocalArguments {
  mode?: string
}

/** `pipe forward`: runs until it is told to end. */
export function runForward(listen: string, target: string, options: ForwardArguments): Promise<void> {
  const open = async (signal: AbortSignal) => {
    const mode = readMode(options.mode)
    const tunnel = await forward(listen, target, {
      ...readLocalArguments(options),
      ...(mode !== undefined && { mode }),
      signal,
    })
    return [tunnel]
  }
  return run(options, { open, listensHere: () => true })
}

/** Permissions, in octal digits as `chmod` has them. */
function readMode(mode: string | undefined): number | undefined {
  if (mode === undefined) return undefined
  if (!/^0?[0-7]{3}$/.test(mode)) throw invalidOption('--mode', 'three octal digits such as 660', mode)
  return Number.parseInt(mode, 8)
}
