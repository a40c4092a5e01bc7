/**
 * Two questions for those who run the service. Alive: does the process answer at all; if not, start it anew. Ready:
 * can uploads be received here now; if not, send clients elsewhere. Asking often costs next to nothing.
 */
import type { FastifyInstance } from 'fastify'
import { factsOf } from './request-facts.ts'
import type { UploadRoom } from './upload-room.ts'

/** An answer is worth this long; many balancers may ask at once. */
const keptMs = 250
/** What has not answered by then is not ready. */
const checkTimeoutMs = 1000

export interface HealthOptions {
  uploads: Pick<UploadRoom, 'checkReady'>
  isDraining: () => boolean
}

/** Undefined when ready, else why not. */
type Reason = string | undefined

export async function health(app: FastifyInstance, options: HealthOptions): Promise<void> {
  const ask = remembered(() => whyNotReady(options.uploads))

  app.addHook('onRequest', async (request, reply) => {
    factsOf(request.raw).isRoutine = true
    reply.header('cache-control', 'no-store')
  })
  app.get('/health/live', async () => ({ status: 'ok' }))
  app.get('/health/ready', async (_request, reply) => {
    const reason = options.isDraining() ? 'this server is shutting down' : await ask()
    if (reason === undefined) return { status: 'ok' }
    return reply.code(503).send({ status: 'unavailable', reason })
  })
}

async function whyNotReady(uploads: HealthOptions['uploads']): Promise<Reason> {
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<Reason>((resolve) => {
    timer = setTimeout(resolve, checkTimeoutMs, 'the check of the upload store took too long')
  })
  const checked = uploads.checkReady().then(
    () => undefined,
    (error: unknown) => (error instanceof Error ? error.message : String(error)),
  )
  try {
    return await Promise.race([checked, tooLate])
  } finally {
    clearTimeout(timer)
  }
}

/** One question at a time; its answer serves everybody who asks meanwhile, and for a moment after. */
function remembered(question: () => Promise<Reason>): () => Promise<Reason> {
  let answer: Promise<Reason> | undefined
  let freshUntil = 0
  return () => {
    if (answer && performance.now() < freshUntil) return answer
    freshUntil = Number.POSITIVE_INFINITY
    answer = question().finally(() => {
      freshUntil = performance.now() + keptMs
    })
    return answer
  }
}
