/**
 * `/uploads`: how far uploads are, as JSON and as a stream of events. A list gives URLs away, and whoever has the URL of
 * an upload may do anything with it: so lists are for the owner of the uploads, or for who may see all, and there are none
 * where nobody is asked who they are. Who names an upload by its id knows its URL already.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { StoreError, type UploadRecord } from '../../stores/contracts.ts'
import { Refusal } from '../errors.ts'
import type { Count, Counting, CountPage } from '../uploads/counting.ts'
import { type Asker, anybody, isShownTo } from '../uploads/upload-request.ts'
import type { Selection, Watch, Watching } from '../uploads/watching.ts'
import { type UploadView, viewOf } from './count-view.ts'
import { EventStream } from './event-stream.ts'
import { type Exchange, NodeExchange } from './exchange.ts'
import { factsOf } from './request-facts.ts'
import { formatCursor, parseLastEventId, parseUploadsQuery, type UploadsQuery } from './uploads-query.ts'

export { hostCors } from './refusals.ts'

/** Who asks, or why they are not answered. */
export type WhoAsks = (request: IncomingMessage) => Promise<Asker | Refusal>

export interface UploadsApiOptions {
  readonly uploads: {
    readonly counting: Counting
    readonly watching: Watching
    readonly server: { urlOf(id: string, exchange: Exchange): string; start(): Promise<void> }
  }
  /** Where it is mounted. Default `/uploads`. */
  readonly path?: string
  /** Undefined where nobody is asked: then uploads can be named, and there are no lists. */
  readonly whoAsks?: WhoAsks | undefined
  /** No lists, whoever asks. */
  readonly withoutLists?: boolean
  /** Sites whose pages may ask: the CORS headers of an answer. */
  readonly corsHeaders?: (origin: string | undefined) => Record<string, string>
  /** A sign of life in every stream this often, which is also when its reader is asked for again. Default 15,000. */
  readonly heartbeatMs?: number
  /** A reader that has taken nothing for so long is let go. Default 30,000. */
  readonly patienceMs?: number
}

const comeBackMs = 2_000
/** What ended so shortly before the last event may have been missed. */
const overlapMs = 5_000

interface Asked {
  readonly query: UploadsQuery
  readonly asker: Asker
  readonly selection: Selection
  readonly view: (count: Count, withParts?: boolean) => UploadView
}

export async function uploadsApi(app: FastifyInstance, options: UploadsApiOptions): Promise<void> {
  const { path = '/uploads', heartbeatMs = 15_000, patienceMs = 30_000, whoAsks, uploads } = options
  const streams = new Map<EventStream, { readonly req: IncomingMessage; readonly end: () => void }>()
  let beating: NodeJS.Timeout | undefined

  const handler = async (request: FastifyRequest, reply: FastifyReply) => {
    reply.headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
    reply.headers(cors(request.raw))
    try {
      const query = parseUploadsQuery(request.raw.url ?? '/', path)
      if (query === undefined) throw new Refusal('route-unknown')
      await uploads.server.start()
      const asked = await understand(query, request.raw, reply.raw)
      if (query.isStream) return await stream(asked, request.raw, reply)
      return reply.send(await answer(asked))
    } catch (error) {
      return refuse(error, request, reply)
    }
  }
  for (const url of [path, `${path}/*`]) {
    app.route({ method: 'GET', url, exposeHeadRoute: false, handler })
    app.options(url, async (request, reply) => reply.code(204).headers(preflight(request.raw)).send())
  }

  async function answer({ query, selection, view }: Asked): Promise<unknown> {
    if (selection.is === 'named') {
      const shown = await named(selection.ids, selection)
      if (!query.isOne) return { ...total(shown), uploads: shown.map((count) => view(count)) }
      if (shown[0] === undefined) throw new Refusal('not-found')
      return view(shown[0], true)
    }
    const { state, limit, after } = query
    const owner = selection.is === 'owner' ? selection.owner : undefined
    return pageView(await uploads.counting.list({ owner, state, limit, after }), view)
  }

  async function named(ids: readonly string[], selection: Selection): Promise<Count[]> {
    const counts = await uploads.counting.some(ids)
    return counts.filter(({ record }) => selection.is === 'named' && selection.isShown(record))
  }

  async function stream(asked: Asked, req: IncomingMessage, reply: FastifyReply): Promise<FastifyReply> {
    const { query, selection, view } = asked
    if (query.isOne && (await named(query.ids!, selection)).length === 0) throw new Refusal('not-found')
    const res = reply.raw
    const lastId = parseLastEventId(req.headers['last-event-id'])
    let open: EventStream | undefined
    let watch: Watch | undefined
    const start = (): EventStream => {
      if (open) return open
      reply.hijack()
      open = new EventStream(res, cors(req), () => watch?.resume())
      open.retryAfter(comeBackMs)
      return open
    }
    const end = () => {
      watch?.stop()
      open?.end()
    }
    watch = await uploads.watching.watch(
      selection,
      {
        get isReady() {
          return open?.isReady ?? true
        },
        snapshot: (page) => start().send('snapshot', Date.now(), pageView(page, view)),
        happened: ({ kind, id, count }) => start().send(kind, Date.now(), count ? view(count) : { id }),
        ended: end,
      },
      lastId === undefined ? undefined : lastId - overlapMs,
    )
    if (res.destroyed) watch.stop()
    keep(start(), { req, end }, res)
    return reply
  }

  /** Beats for all streams at once, while there are any. */
  function keep(open: EventStream, of: { req: IncomingMessage; end: () => void }, res: ServerResponse): void {
    streams.set(open, of)
    beating ??= setInterval(() => void beat(), heartbeatMs).unref()
    const forget = () => {
      of.end()
      streams.delete(open)
      if (streams.size > 0) return
      clearInterval(beating)
      beating = undefined
    }
    if (res.destroyed) forget()
    else res.once('close', forget)
  }

  /** A token may have been taken back since the stream began. */
  async function beat(): Promise<void> {
    for (const [open, { req, end }] of [...streams]) {
      open.beat(patienceMs)
      const asker = await whoAsks?.(req).catch(() => undefined)
      if (asker instanceof Refusal && asker.status < 500) end()
    }
  }

  async function understand(query: UploadsQuery, req: IncomingMessage, res: ServerResponse): Promise<Asked> {
    const asker = whoAsks ? await whoAsks(req) : anybody
    if (asker instanceof Refusal) throw asker
    const exchange = new NodeExchange(req, res)
    const urlOf = (id: string) => uploads.server.urlOf(id, exchange)
    const mayName = (record: UploadRecord) => whoAsks !== undefined && isShownTo(asker, record.head)
    const view = (count: Count, withParts = false) => viewOf(count, { urlOf, mayName, withParts })
    return { query, asker, selection: select(query, asker), view }
  }

  function select({ ids, owner }: UploadsQuery, asker: Asker): Selection {
    if (ids) return { is: 'named', ids, isShown: ({ head }) => isShownTo(asker, head) }
    if (whoAsks === undefined || options.withoutLists || !uploads.counting.hasLists)
      throw new Refusal('route-unknown')
    if (asker.seesAll) return owner === undefined ? { is: 'all' } : { is: 'owner', owner }
    if (asker.owner === undefined || (owner ?? asker.owner) !== asker.owner) throw new Refusal('owner-needed')
    return { is: 'owner', owner: asker.owner }
  }

  function cors({ headers }: IncomingMessage): Record<string, string> {
    return options.corsHeaders?.(headers.origin) ?? {}
  }

  function preflight(req: IncomingMessage): Record<string, string> {
    return {
      ...cors(req),
      'Access-Control-Allow-Methods': 'GET, OPTIONS',
      'Access-Control-Allow-Headers': 'Authorization, Last-Event-ID, X-Request-ID',
      'Access-Control-Max-Age': '86400',
    }
  }
}

function pageView({ counts, next }: CountPage, view: Asked['view']): unknown {
  return { uploads: counts.map((count) => view(count)), next: next ? formatCursor(next) : null }
}

/** All uploads that were named, as if they were one: the parts of a parallel upload before they have a final. */
function total(counts: readonly Count[]): { offset: number; length: number | null } {
  const lengths = counts.map(({ length }) => length)
  const sum = (numbers: readonly number[]) => numbers.reduce((all, number) => all + number, 0)
  return {
    offset: sum(counts.map(({ offset }) => offset)),
    length: lengths.includes(undefined) ? null : sum(lengths as number[]),
  }
}

function refuse(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const isAway = error instanceof StoreError && error.code === 'unavailable'
  const isEnding = error instanceof Error && error.name === 'AbortError'
  const refusal =
    error instanceof Refusal
      ? error
      : new Refusal(isAway || isEnding ? 'lists-away' : 'internal', { cause: error })
  const facts = factsOf(request.raw)
  facts.code = refusal.code
  if (refusal.code === 'internal') facts.error = error
  if (refusal.status === 503) reply.header('retry-after', '2')
  if (refusal.challenge !== undefined) reply.header('www-authenticate', refusal.challenge)
  reply.code(refusal.status).type('text/plain; charset=utf-8')
  return reply.send(`${refusal.code}: ${refusal.message}\n`)
}
