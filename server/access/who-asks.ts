/** The same door for /uploads: whose uploads somebody may see, or why none. */
import type { IncomingMessage } from 'node:http'
import { Refusal } from '../errors.ts'
import { factsOf } from '../host/request-facts.ts'
import type { Asker } from '../uploads/upload-request.ts'
import { authorizationOf } from './bearer.ts'
import { type Gate, outOfScope } from './gate.ts'
import { isAdmin, may } from './identity.ts'

/** Who may ask how far one upload is may ask it of all that are theirs. */
export function whoAsksBy(gate: Gate): (req: IncomingMessage) => Promise<Asker | Refusal> {
  return async (req) => {
    const { method = 'GET', url = '/', headers, rawHeaders } = req
    const authorization = authorizationOf(rawHeaders, headers)
    try {
      const identity = await gate.identify({ method, url, headers, authorization }, 'begin')
      factsOf(req).owner = identity.owner
      if (!may(identity, 'ask')) return outOfScope('ask')
      return { owner: identity.owner, seesAll: isAdmin(identity) }
    } catch (error) {
      if (error instanceof Refusal) return error
      throw error
    }
  }
}
