/** `GET /access/identity`: who a token stands for and what it may do, for pages and for people who try one. */
import type { FastifyInstance } from 'fastify'
import { identityOf, requireScope } from './admin.ts'
import type { Gate } from './gate.ts'
import { usualScopes } from './identity.ts'

export async function accessRoutes(
  app: FastifyInstance,
  { gate }: { gate?: Gate | undefined },
): Promise<void> {
  if (gate === undefined) return
  app.get('/access/identity', { onRequest: requireScope(gate) }, async (request, reply) => {
    const { owner, scopes = usualScopes, limits = {}, expiresAt } = identityOf(request)!
    const { maxBytes, types, expireAfterMs } = limits
    reply.header('Cache-Control', 'no-store')
    return { owner, scopes, maxBytes, types, expireAfterMs, expiresAt }
  })
}
