/**
 * What a client is told of a failure. A refusal speaks in its own words, or in those of the hook that refused; what nobody
 * expected is reported, and answered with 500. `onResponseError` has the last word.
 *
 * But never is a HEAD answered so that a client begins again at byte 0 where it only has to ask once more.
 */
import { StoreError } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import { HookRefusal } from '../hooks/hook-refusal.ts'
import { HookError } from '../hooks/hook-types.ts'
import { changed } from '../hooks/request-hooks.ts'
import { type Abilities, type Answer, renderTus } from '../protocol/tus.ts'
import type { Exchange } from './exchange.ts'
import type { TidemarkServerOptions } from './server-options.ts'
import { checkStatus, hookRefusal } from './tus-hooks.ts'
import type { UploadUrls } from './upload-urls.ts'

export interface ErrorAnswersParts {
  readonly options: Pick<TidemarkServerOptions, 'onResponseError' | 'report'>
  readonly abilities: Abilities
  readonly urls: UploadUrls
}

export class ErrorAnswers {
  readonly #options: ErrorAnswersParts['options']
  readonly #abilities: Abilities
  readonly #urls: UploadUrls

  constructor({ options, abilities, urls }: ErrorAnswersParts) {
    this.#options = options
    this.#abilities = abilities
    this.#urls = urls
  }

  async answer(error: unknown, exchange: Exchange, method: string): Promise<Answer> {
    const { facts } = exchange
    const fromHook = hookRefusal(error)
    const unexpected = method === 'HEAD' ? 'busy' : 'internal'
    const refusal =
      error instanceof Refusal
        ? error
        : new Refusal(unexpected, { cause: error, ...(method === 'HEAD' && { retryAfterS: 1 }) })
    facts.code = fromHook ? 'refused-by-hook' : refusal.code
    facts.isFinished = refusal.isFinished
    if (error !== refusal && !fromHook) this.onUnexpected(error, facts)
    // The client is told to try again; whoever runs the server is told why.
    if (refusal.cause instanceof StoreError && ['damaged', 'io'].includes(refusal.cause.code))
      facts.error = refusal.cause
    if (refusal.cause instanceof HookError) facts.error = refusal.cause
    const answer = this.#asHookSaid(refusal, fromHook, method)
    if (refusal.createdId !== undefined)
      answer.headers.Location = this.#urls.locationOf(refusal.createdId, exchange)
    const { onResponseError } = this.#options
    if (!onResponseError) return answer
    try {
      const ours = { status_code: answer.status, body: answer.body ?? '' }
      const mapped = await onResponseError(exchange.request, error === refusal ? ours : (error as Error))
      if (mapped) checkStatus(mapped.status_code)
      return mapped ? { ...answer, status: mapped.status_code, body: mapped.body } : answer
    } catch (error) {
      this.onUnexpected(error, facts)
      return answer
    }
  }

  /** What nobody expected stands in the log line of its request, and is reported. */
  onUnexpected(error: unknown, facts: Exchange['facts']): void {
    facts.error = error
    this.#options.report?.({ is: 'request-failed', error })
  }

  /** In the words of who refused; but to HEAD no 5xx and no 429, after which clients forget the upload. */
  #asHookSaid(refusal: Refusal, fromHook: ReturnType<typeof hookRefusal>, method: string): Answer {
    const ours = renderTus({ is: 'refused', refusal }, this.#abilities)
    const said = refusal instanceof HookRefusal ? changed(ours, refusal.response) : { ...ours, ...fromHook }
    if (method !== 'HEAD' || (said.status < 500 && said.status !== 429)) return said
    const busy = new Refusal('busy', { retryAfterS: 1 })
    return renderTus({ is: 'refused', refusal: busy }, this.#abilities)
  }
}
