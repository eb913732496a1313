import { checkInteger, checkNames, invalidOption, MAX_TIMEOUT } from '../options.js'
import { parseRate, type Rate } from '../throttle.js'

/** What may be wrong with the network in one direction. */
export interface DirectionConditions {
  /** Milliseconds that bytes, datagrams and ends are on their way. Default 0. */
  latency?: number
  /** Most milliseconds by which each chunk or datagram takes more or less than that. They stay in order. Default 0. */
  jitter?: number
  /** Bytes per second of all visitors together, as `limit` has them, but with nothing saved up. Default: no limit. */
  bandwidth?: Rate
  /** Share of the datagrams that are lost, from 0 to 1. Default 0. */
  dropRate?: number
  /** Share of the datagrams that come twice, from 0 to 1. Default 0. */
  duplicateRate?: number
  /** Share of the datagrams that the next one overtakes, from 0 to 1. Default 0. */
  reorderRate?: number
  /** Visitors are let in, and nothing flows. Default false. */
  stall?: boolean
  /** Bytes after which a visitor and the target are reset. Default: never. */
  resetAfter?: number
  /** Milliseconds after which the direction ends by a FIN; what comes later is lost. Default: never. */
  closeAfter?: number
  /** Bytes are handed on in small pieces, with milliseconds between them. Default: as they come. */
  slice?: Slice
}

/** Small writes with gaps. */
export interface Slice {
  /** Most bytes of a piece. */
  size: number
  /** Milliseconds between two pieces. Default 0. */
  gap?: number
}

/** A network that is broken on purpose. What is said of both directions holds where `in` and `out` say nothing else. */
export interface Conditions extends DirectionConditions {
  /** From visitors to the target. */
  in?: DirectionConditions
  /** From the target to visitors. */
  out?: DirectionConditions
  /** Visitors are turned away at once. Default false. */
  refuse?: boolean
  /** What all chance comes from, so that a failure repeats: a whole number below 2 ** 32. Default: one that is chosen. */
  seed?: number
}

/** The conditions of one direction as they are worked with. */
export interface CheckedDirection extends Omit<DirectionConditions, 'bandwidth' | 'slice'> {
  latency: number
  jitter: number
  bandwidth: number | undefined
  dropRate: number
  duplicateRate: number
  reorderRate: number
  stall: boolean
  slice: Required<Slice> | undefined
}

/** The conditions as they are worked with, and as they were given. */
export interface CheckedConditions {
  given: Conditions
  in: CheckedDirection
  out: CheckedDirection
  refuse: boolean
  seed: number | undefined
}

const directionNames = [
  'latency',
  'jitter',
  'bandwidth',
  'dropRate',
  'duplicateRate',
  'reorderRate',
  'stall',
  'resetAfter',
  'closeAfter',
  'slice',
]
const forDatagrams = ['dropRate', 'duplicateRate', 'reorderRate']
const forStreams = ['resetAfter', 'closeAfter', 'slice']

/** Checks conditions, and fills in the defaults. */
export function readConditions(conditions: Conditions, isUdp: boolean): CheckedConditions {
  checkNames('conditions', conditions, [...directionNames, 'in', 'out', 'refuse', 'seed'])
  const { in: inwards = {}, out: outwards = {}, refuse = false, seed, ...both } = conditions
  checkNames('conditions.in', inwards, directionNames)
  checkNames('conditions.out', outwards, directionNames)
  checkFlag('conditions.refuse', refuse)
  if (seed !== undefined) checkInteger('conditions.seed', seed, 0, 2 ** 32 - 1)
  readDirection('conditions', both, isUdp)
  return {
    given: conditions,
    in: readDirection('conditions.in', { ...both, ...inwards }, isUdp),
    out: readDirection('conditions.out', { ...both, ...outwards }, isUdp),
    refuse,
    seed,
  }
}

function readDirection(prefix: string, given: DirectionConditions, isUdp: boolean): CheckedDirection {
  const { latency = 0, jitter = 0, dropRate = 0, duplicateRate = 0, reorderRate = 0, stall = false } = given
  const { resetAfter, closeAfter, slice } = given
  for (const name of isUdp ? forStreams : forDatagrams) {
    const value = given[name as keyof DirectionConditions]
    const wanted = `left out where the target is ${isUdp ? '' : 'not '}udp`
    if (value !== undefined) throw invalidOption(`${prefix}.${name}`, wanted, value)
  }
  for (const [name, value] of Object.entries({ latency, jitter })) {
    checkMilliseconds(`${prefix}.${name}`, value)
  }
  for (const [name, value] of Object.entries({ dropRate, duplicateRate, reorderRate })) {
    if (!(typeof value === 'number' && value >= 0 && value <= 1))
      throw invalidOption(`${prefix}.${name}`, 'a share from 0 to 1', value)
  }
  checkFlag(`${prefix}.stall`, stall)
  if (resetAfter !== undefined) checkInteger(`${prefix}.resetAfter`, resetAfter, 0, Number.MAX_SAFE_INTEGER)
  if (closeAfter !== undefined) checkMilliseconds(`${prefix}.closeAfter`, closeAfter)
  return {
    latency,
    jitter,
    bandwidth: parseRate(`${prefix}.bandwidth`, given.bandwidth),
    dropRate,
    duplicateRate,
    reorderRate,
    stall,
    ...(resetAfter !== undefined && { resetAfter }),
    ...(closeAfter !== undefined && { closeAfter }),
    slice: slice === undefined ? undefined : readSlice(`${prefix}.slice`, slice),
  }
}

function readSlice(name: string, slice: Slice): Required<Slice> {
  checkNames(name, slice, ['size', 'gap'])
  const { size, gap = 0 } = slice
  checkInteger(`${name}.size`, size, 1, Number.MAX_SAFE_INTEGER)
  checkMilliseconds(`${name}.gap`, gap)
  return { size, gap }
}

function checkMilliseconds(name: string, value: unknown): void {
  if (!(typeof value === 'number' && value >= 0 && value <= MAX_TIMEOUT))
    throw invalidOption(name, `milliseconds from 0 to ${MAX_TIMEOUT}`, value)
}

function checkFlag(name: string, value: unknown): void {
  if (typeof value !== 'boolean') throw invalidOption(name, 'true or false', value)
}
