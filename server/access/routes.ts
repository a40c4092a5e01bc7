/**
 * For pages whose people sign in, and for those who try a token: `GET /access/identity` says who a token stands for and
 * what it may do; `POST /access/download?id=<id>` gives a query that, behind the URL of
 * that upload, downloads it for a minute without a token.
 */
import type { FastifyInstance } from 'fastify'
import { Refusal } from '../errors.ts'
import { identityOf, requireScope, sendRefusal } from './admin.ts'
import type { Gate } from './gate.ts'
import { usualScopes } from './identity.ts'
import { TicketGate } from './tickets.ts'

export async function accessRoutes(
  app: FastifyInstance,
  { gate }: { gate?: Gate | undefined },
): Promise<void> {
  if (gate === undefined) return
  app.get('/access/identity', { onRequest: requireScope(gate) }, async (request, reply) => {
    const { owner, scopes = usualScopes, limits = {}, expiresAt } = identityOf(request)!
    const { maxBytes, types, expireAfterMs, quotas } = limits
    reply.header('Cache-Control', 'no-store')
    return { owner, scopes, maxBytes, types, expireAfterMs, quotas, expiresAt }
  })
  if (!(gate instanceof TicketGate)) return
  app.post<{ Querystring: { id?: string } }>(
    '/access/download',
    { onRequest: requireScope(gate, 'read') },
    async (request, reply) => {
      const { id = '' } = request.query
      if (typeof id !== 'string' || id === '') return sendRefusal(request, reply, new Refusal('not-found'))
      reply.header('Cache-Control', 'no-store')
      return gate.issue(identityOf(request)!, id)
    },
  )
}
