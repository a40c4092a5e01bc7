/** The same door for routes of Fastify: the back office, and what else is for those who signed in. */
import type { FastifyReply, FastifyRequest, onRequestAsyncHookHandler } from 'fastify'
import { Refusal } from '../errors.ts'
import { factsOf } from '../host/request-facts.ts'
import { renderRefusal } from '../protocol/tus.ts'
import { authorizationOf } from './bearer.ts'
import { type AccessRequest, type Gate, outOfScope } from './gate.ts'
import { type Identity, may, type Scope } from './identity.ts'

/** What a gate is shown of a plain request of Fastify. */
function accessRequestOf({ raw }: FastifyRequest): AccessRequest {
  return {
    method: raw.method ?? 'GET',
    url: raw.url ?? '/',
    headers: raw.headers,
    authorization: authorizationOf(raw.rawHeaders, raw.headers),
  }
}

/**
 * An onRequest hook that lets in who has a scope, and refuses others with 401 or 403. Without a gate it lets everybody in.
 *
 *     app.get('/metrics', { onRequest: requireScope(gate, 'admin') }, handler)
 */
export function requireScope(gate: Gate | undefined, scope?: Scope): onRequestAsyncHookHandler {
  return async (request, reply) => {
    if (gate === undefined) return
    try {
      const identity = await gate.identify(accessRequestOf(request), 'begin')
      factsOf(request.raw).owner = identity.owner
      if (scope !== undefined && !may(identity, scope)) throw outOfScope(scope)
      identities.set(request, identity)
    } catch (error) {
      if (!(error instanceof Refusal)) throw error
      await sendRefusal(request, reply, error)
    }
  }
}

export const requireAdmin = (gate: Gate | undefined): onRequestAsyncHookHandler => requireScope(gate, 'admin')

/** Who asks, behind `requireScope`; undefined where nobody is asked. */
export function identityOf(request: FastifyRequest): Identity | undefined {
  return identities.get(request)
}

const identities = new WeakMap<FastifyRequest, Identity>()

export function sendRefusal(request: FastifyRequest, reply: FastifyReply, refusal: Refusal): FastifyReply {
  factsOf(request.raw).code = refusal.code
  const { status, headers, body } = renderRefusal(refusal)
  return reply.code(status).headers(headers).send(body)
}
