/** What a command failed with, in the words of the contracts; and whether it may have been executed all the same. */
import { StoreError } from '../contracts.ts'

/** A command failed; `mayHaveRun` says whether Redis may have executed it all the same. */
export class RedisFailure extends StoreError {
  readonly mayHaveRun: boolean

  constructor(
    code: 'unavailable' | 'damaged',
    message: string,
    options: { cause: unknown; mayHaveRun: boolean },
  ) {
    super(code, message, options)
    this.mayHaveRun = options.mayHaveRun
  }
}

/** Everything passes but what contradicts itself: a key of another kind, or a script that Redis cannot run. */
export function asStoreError(error: unknown, place: string): StoreError {
  if (error instanceof StoreError) return error
  const message = describe(error)
  // An answer, also a refusal, means that nothing is under way any more.
  const isAnswer = error instanceof Error && error.name === 'ReplyError'
  const mayHaveRun = !isAnswer && !message.startsWith("Stream isn't writeable")
  if (contradictsItself(message)) {
    const options = { cause: error, mayHaveRun: true }
    return new RedisFailure('damaged', `Redis at ${place} holds something else: ${message}`, options)
  }
  return new RedisFailure('unavailable', `Redis at ${place} cannot be used: ${message}`, {
    cause: error,
    mayHaveRun,
  })
}

/** Not READONLY, CLUSTERDOWN, OOM and the like, which pass, and name the script that they stopped too. */
function contradictsItself(message: string): boolean {
  return message.includes('WRONGTYPE') || (/user_script/.test(message) && /^(ERR (?!ACL)|@)/.test(message))
}

export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error)
  // All addresses of a name failed, or all nodes: the words are in the parts.
  if (error instanceof AggregateError) return error.errors.map(describe).join('; ')
  // ioredis's words for a command that was cut off, which here is never sent again.
  if (error.name === 'MaxRetriesPerRequestError') return 'the connection was lost before the answer'
  return error.message
}

export function isTimeout(error: unknown): boolean {
  return error instanceof Error && error.message === 'Command timed out'
}
