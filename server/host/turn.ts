/**
 * The end of the present turn of the event loop, for answers: they go together then, and whoever waits for them on this
 * machine, as a proxy does, is woken once and not once for each (docs/decisions/answers-of-a-turn.md).
 */
let end: Promise<void> | undefined

/** One promise for all who ask in the same turn. */
export function endOfTurn(): Promise<void> {
  end ??= new Promise((resolve) => {
    setImmediate(() => {
      end = undefined
      resolve()
    })
  })
  return end
}
