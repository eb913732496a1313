/** Which turn of the event loop it is, and when it ends: at the cost of one callback, however many ask. */

/** The real one, also where a test puts the timers of its process under its own control. */
const beforeNextTurn = setImmediate

let turn = 0
/** What is to be called at the end of this turn, once anybody has asked. */
let atEnd: (() => void)[] | undefined

/** The number of this turn, which no other has that anybody asks in. */
export function currentTurn(): number {
  if (!atEnd) {
    atEnd = []
    beforeNextTurn(immediateOnTurn)
  }
  return turn
}

/** Calls back at the end of this turn. */
export function whenTurned(callback: () => void): void {
  currentTurn()
  atEnd?.push(callback)
}

function immediateOnTurn(): void {
  const callbacks = atEnd ?? []
  atEnd = undefined
  turn++
  for (const callback of callbacks) callback()
}
