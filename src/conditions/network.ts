import { randomInt } from 'node:crypto'
import type { OnDrop } from '../drops.js'
import { TunnelError } from '../errors.js'
import { chanceOf } from './chance.js'
import { Gate } from './gate.js'
import type { CheckedConditions, Conditions } from './options.js'
import { Stage } from './stage.js'
import { type Member, makeWay, type Way } from './way.js'

/** One of each direction. */
interface Both<T> {
  in: T
  out: T
}

/** The network between the visitors of a tunnel and its target, broken as its conditions say. */
export class Network {
  #checked: CheckedConditions
  #ways: Both<Way>
  #seed: number
  #isPaused = false
  readonly #members: Both<Set<Member>> = { in: new Set(), out: new Set() }
  /** Those that came since the seed was set: each has chance of its own, whatever becomes of the others. */
  #visitors = 0

  constructor(checked: CheckedConditions) {
    this.#checked = checked
    this.#ways = { in: makeWay(checked.in), out: makeWay(checked.out) }
    this.#seed = checked.seed ?? randomInt(2 ** 32)
  }

  get conditions(): Conditions {
    return { ...this.#checked.given, seed: this.#seed }
  }

  /** Why a visitor is turned away, if it is. */
  get refusal(): TunnelError | undefined {
    const why = 'the conditions of the tunnel refuse visitors'
    return this.#checked.refuse ? new TunnelError('broken-on-purpose', why) : undefined
  }

  set(checked: CheckedConditions): void {
    this.#checked = checked
    this.#ways = { in: makeWay(checked.in), out: makeWay(checked.out) }
    if (checked.seed !== undefined) {
      this.#seed = checked.seed
      this.#visitors = 0
    }
    this.#tell()
  }

  pause(isPaused: boolean): void {
    this.#isPaused = isPaused
    this.#tell()
  }

  /** What the bytes of a visitor pass through. */
  stages(): Both<Stage> {
    return this.#join((direction, visitor) => {
      const members = this.#members[direction]
      const stage: Stage = new Stage(this.#ways[direction], chanceOf(this.#seed, visitor), () =>
        members.delete(stage),
      )
      members.add(stage)
      return stage
    })
  }

  /** What the datagrams of a flow pass through, which go to `onPass` then. */
  gates(onPass: Both<(datagram: Buffer) => void>, onDrop: OnDrop): Both<Gate> {
    return this.#join((direction, visitor) => {
      const members = this.#members[direction]
      const onGone = () => members.delete(gate)
      const options = { onPass: onPass[direction], onDrop, onGone }
      const gate: Gate = new Gate(this.#ways[direction], chanceOf(this.#seed, visitor), options)
      members.add(gate)
      return gate
    })
  }

  #join<T>(make: (direction: 'in' | 'out', visitor: string) => T): Both<T> {
    const number = this.#visitors++
    return { in: make('in', `in ${number}`), out: make('out', `out ${number}`) }
  }

  #tell(): void {
    for (const direction of ['in', 'out'] as const) {
      const way = this.#ways[direction]
      way.isStill = way.stall || this.#isPaused
      for (const member of this.#members[direction]) member.update(way)
    }
  }
}
