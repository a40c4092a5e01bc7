/** A refusal that a hook asked for; its own words go to the client in place of ours. */
import { type ErrorCode, Refusal } from '../errors.ts'
import type { HookResponse } from './answer.ts'

export class HookRefusal extends Refusal {
  readonly response: HookResponse

  constructor(code: ErrorCode, response: HookResponse) {
    super(code)
    this.name = 'HookRefusal'
    this.response = response
  }
}
