/**
 * `Server` of @tus/server with another heart: the same options, hooks, events and store contracts, but requests go
 * through Tidemark's own dialect and engine. What it promises stands in docs/reliability.md.
 */
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import type { Readable } from 'node:stream'
import { Server } from '@tus/server'
import { StoreError, type UploadRecord } from '../../stores/contracts.ts'
import { LocalLocker } from '../../stores/local/local-locker.ts'
import { Admission } from '../access/admission.ts'
import type { Gate } from '../access/gate.ts'
import { Refusal } from '../errors.ts'
import { askForAccess } from '../hooks/access.ts'
import { HookRefusal } from '../hooks/hook-refusal.ts'
import { HookError } from '../hooks/hook-types.ts'
import { Hooks } from '../hooks/hooks.ts'
import { changed } from '../hooks/request-hooks.ts'
import { storageOf } from '../hooks/storage.ts'
import type { Visit } from '../plain/door.ts'
import { PlainRoom } from '../plain/plain-room.ts'
import { corsHeaders } from '../protocol/cors.ts'
import { formatReprDigest } from '../protocol/digest.ts'
import { maxHeaderBytes } from '../protocol/header-limit.ts'
import type { Command, Outcome } from '../protocol/messages.ts'
import { type Abilities, type Answer, methodOf, parseTus, renderTus } from '../protocol/tus.ts'
import { pathOf } from '../protocol/upload-url.ts'
import { UploadEngine } from '../uploads/engine.ts'
import { isPart } from '../uploads/kin.ts'
import { type Progress, progressOf } from '../uploads/progress.ts'
import { Sweeper } from '../uploads/sweeper.ts'
import { abilitiesOf, byteStoreOf, checkGate, expiryOf, refuseUnable } from './abilities.ts'
import { audiencesOf } from './audiences.ts'
import { BodyExchange } from './body-exchange.ts'
import { countedClient, quotasOf } from './counted.ts'
import { download, validatorHeaders } from './download.ts'
import { type Exchange, NodeExchange, type Reply, toWebResponse, WebExchange } from './exchange.ts'
import { Lockers } from './lockers.ts'
import { sendReply } from './send-reply.ts'
import type { TidemarkServerOptions } from './server-options.ts'
import { checkStatus, HookedRequest, hookRefusal } from './tus-hooks.ts'
import { typeRule } from './type-rules.ts'
import { UploadUrls } from './upload-urls.ts'

export class TidemarkServer extends Server {
  readonly engine: UploadEngine
  readonly #options: TidemarkServerOptions
  readonly #abilities: Abilities
  readonly #urls: UploadUrls
  readonly #lockers: Lockers
  readonly #hooks: Hooks | undefined
  readonly #plain: PlainRoom | undefined
  #started: Promise<void> | undefined

  constructor(options: TidemarkServerOptions) {
    const { locker = new LocalLocker(), relativeLocation, ...rest } = options
    super({ ...rest, relativeLocation: relativeLocation === true })
    this.#options = options
    this.#urls = new UploadUrls(options)
    this.#lockers = new Lockers(locker, {
      onUnlockFailed: (id, error) => options.report?.({ is: 'unlock-failed', id, error }),
    })
    checkGate(options)
    const bytes = byteStoreOf(options.datastore)
    this.#hooks =
      options.hooks &&
      new Hooks({
        settings: options.hooks,
        storageOf: storageOf(bytes),
        report: (event) => options.report?.(event),
      })
    this.engine = new UploadEngine({
      bytes,
      records: options.records,
      locker: this.#lockers,
      ownRequest: (id) => this.#ownRequest(id),
      audiences: audiencesOf(options, this.#events, (id) => this.#ownRequest(id), this.#hooks),
      report: (event) => options.report?.(event),
      ...(options.now && { now: options.now }),
      ...(options.meter && { meter: options.meter }),
      settings: {
        expiry: expiryOf(options),
        idleMs: options.networkTimeoutMs ?? 60_000,
        leastBytesPerSecond: options.leastBytesPerSecond ?? 0,
        acquireLockTimeoutMs: options.acquireLockTimeoutMs ?? 20_000,
        removeParts: options.removeParts ?? false,
        reserveFreeBytes: options.reserveFreeBytes ?? 0,
        refuseMetadata: typeRule(options.allowedTypes),
        digest: options.digest,
        instantUpload: options.instantUpload ?? 'owner',
        serveUnfinished: options.serveUnfinished,
      },
      quotas: quotasOf(options),
    })
    this.#abilities = abilitiesOf(bytes, options)
    this.#plain = this.#plainRoom(options)
  }

  /** Opens store, records and locker. The first request does it when nobody did before. */
  start(): Promise<void> {
    this.#started ??= this.engine.start().catch((error: unknown) => {
      // A disk or a Redis that comes later is tried again by the next request.
      this.#started = undefined
      throw error
    })
    return this.#started
  }

  /**
   * How far an upload is, also while another server receives it; no request is disturbed. Undefined when it is not there.
   */
  async progress(id: string): Promise<Progress | undefined> {
    await this.start()
    return progressOf(id, this.engine)
  }

  /** The URL of an upload, as this request would be given it. */
  urlOf(id: string, exchange: Exchange): string {
    return this.#urls.locationOf(id, exchange)
  }

  /** Ends running bodies at their last byte, answers them, and takes no new data. */
  drain(): Promise<void> {
    this.#hooks?.stopSoon()
    return this.engine.drain()
  }

  /** Drains, then closes what `start` opened. */
  async close(): Promise<void> {
    this.#hooks?.stopSoon()
    if (this.#started !== undefined) {
      await this.#started.catch(() => undefined)
      await this.engine.close()
    }
    await this.#hooks?.close()
  }

  /**
   * Removes what has expired, under the lock of each upload; returns how many. Finished uploads stay. A store that is
   * not Tidemark's does it by its own `deleteExpired`, as it likes.
   */
  override async cleanUpExpiredUploads(): Promise<number> {
    await this.start()
    if (this.#options.datastore.byteStore === undefined) return super.cleanUpExpiredUploads()
    const sweeper = new Sweeper({ engine: this.engine, everyMs: 0 })
    return (await sweeper.walk(this.engine.now())).removed
  }

  override async handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const exchange = new NodeExchange(req, res)
    try {
      const reply = await this.#reply(exchange)
      await sendReply(req, res, reply, { facts: exchange.facts, isEnding: this.engine.isDraining })
    } catch (error) {
      // Routers do not wait for this promise: a rejection would end the process.
      this.#onUnexpected(error, exchange.facts)
      res.destroy()
    }
  }

  override async handleWeb(request: Request): Promise<Response> {
    return toWebResponse(await this.#reply(new WebExchange(request)))
  }

  /** A server of its own, for those who have none. */
  // biome-ignore lint/suspicious/noExplicitAny: the arguments are those of net.Server.listen, as in the base class
  override listen(...args: any[]): http.Server {
    const onRequest = (req: IncomingMessage, res: ServerResponse) => void this.handle(req, res)
    const server = http.createServer({ requestTimeout: 0, maxHeaderSize: maxHeaderBytes }, onRequest)
    server.on('checkContinue', (req: IncomingMessage, res: ServerResponse) => {
      new NodeExchange(req, res).facts.expectsContinue = true
      onRequest(req, res)
    })
    return server.listen(...args)
  }

  async #reply(exchange: Exchange): Promise<Reply> {
    if (this.#plain?.owns(exchange.url)) return this.#plain.reply(exchange)
    const method = methodOf(exchange.method, exchange.headers)
    const reply = await this.#answer(exchange, method)
    if (reply.is !== 'answer') return reply
    const cors = corsHeaders(exchange.headers, this.#options, method === 'OPTIONS')
    return { ...reply, headers: { 'Tus-Resumable': '1.0.0', ...reply.headers, ...cors } }
  }

  async #answer(exchange: Exchange, method: string): Promise<Reply> {
    const route = method === 'GET' && this.handlers.GET.paths.get(pathOf(exchange.url))
    try {
      if (route) return { is: 'response', response: await route(exchange.request) }
      const { gate } = this.#options
      // In preflights nobody is asked: browsers send them without a token.
      const admission = gate && method !== 'OPTIONS' ? await this.#admit(gate, exchange, method) : undefined
      await this.start()
      const target = this.#urls.targetOf(exchange)
      if (target.is === 'upload') exchange.facts.uploadId = target.id
      const { headers } = exchange
      const trailers = () => exchange.trailers
      const idOfUrl = (url: string) => this.#urls.idOf(url)
      const command = parseTus({ method, target, headers, trailers, idOfUrl }, this.#abilities)
      return await this.#run(command, exchange, admission)
    } catch (error) {
      return { is: 'answer', ...(await this.#answerError(error, exchange, method)) }
    }
  }

  async #admit(gate: Gate, exchange: Exchange, method: string): Promise<Admission> {
    const { now = Date.now } = this.#options
    const { url, headers, authorization, facts } = exchange
    const admission = await Admission.of(gate, { method, url, headers, authorization }, now)
    facts.owner = admission.identity.owner
    if (admission.identity.tokenId !== undefined) facts.tokenId = admission.identity.tokenId
    return admission
  }

  async #run(command: Command, exchange: Exchange, admission: Admission | undefined): Promise<Reply> {
    const urlOf = (id: string) => this.#urls.locationOf(id, exchange)
    const request = new HookedRequest(exchange, this.#options, this.#events, urlOf, this.#hooks)
    request.client = countedClient(this.#options, exchange)
    if (admission) request.admit(admission)
    const unallowed = admission?.refuse(command)
    if (unallowed) throw unallowed
    if ('id' in command) await request.incoming(command.id)
    const refusal = refuseUnable(command, this.engine.bytes, this.#options)
    if (refusal) throw asAsked(command, refusal)
    if (command.do !== 'options') request.locker = await this.#lockers.of(exchange)
    await this.#allow(request, command)
    const outcome = await this.#perform(command, request)
    if (outcome.is === 'cut') {
      exchange.facts.code = outcome.why
      if (outcome.record) exchange.facts.offset = outcome.record.mark.offset
      return { is: 'cut' }
    }
    if (outcome.is === 'readable') return this.#download(outcome.record, exchange, request)
    if (outcome.is === 'refused') throw asAsked(command, outcome.refusal)
    const isCreation = outcome.is === 'created'
    const answer = renderTus(outcome, this.#abilities, {
      location: isCreation ? urlOf(outcome.record.head.id) : '',
      withOffset: command.do === 'create' && command.isBytes,
    })
    if (outcome.is === 'offset') Object.assign(answer.headers, this.#headersOf(outcome.record))
    return { is: 'answer', ...this.#conclude(command, outcome, answer, request, exchange) }
  }

  async #allow({ hooks, asker }: HookedRequest, command: Command): Promise<void> {
    if (hooks?.asksForAccess) await askForAccess(command, hooks, { bytes: this.engine.bytes, asker })
  }

  async #download(record: UploadRecord, exchange: Exchange, request: HookedRequest): Promise<Reply> {
    const { headers } = exchange
    const asked = { isHead: methodOf(exchange.method, headers) === 'HEAD', headers, now: this.engine.now() }
    try {
      return await download(this.engine.bytes, record, asked)
    } catch (error) {
      // Terminated between the look and the opening of its file: gone, and nobody's failure. Or taken over, which gives
      // what is not finished a file of its own.
      const now = await this.engine.read(record.head.id, request)
      if (now.is === 'refused') throw asAsked({ do: 'read', ...asked }, now.refusal)
      if (now.is !== 'readable' || now.record.mark.generation === record.mark.generation) throw error
      return download(this.engine.bytes, now.record, asked)
    }
  }

  /** What a question about an upload is told of its bytes, where they can be downloaded. */
  #headersOf(record: UploadRecord): Record<string, string> {
    const { head, mark } = record
    const isServed = mark.state === 'finished' && !isPart(head) && !this.#options.disableDownload
    return {
      ...(isServed && validatorHeaders(record, this.engine.now())),
      ...(mark.digest && { 'Repr-Digest': formatReprDigest(mark.digest) }),
    }
  }

  #perform(command: Command, request: HookedRequest): Promise<Outcome> | Outcome {
    switch (command.do) {
      case 'options':
        return { is: 'options' }
      case 'create':
        return this.engine.create(command, request)
      case 'concat':
        return this.engine.concat(command, request)
      case 'append':
        return this.engine.append(command, request)
      case 'offset':
        return this.engine.offset(command.id, request)
      case 'terminate':
        return this.engine.terminate(command.id, request)
      case 'read':
        return this.engine.read(command.id, request)
    }
  }

  /** Tells the events that have become true, and lets the finish hook change the answer. */
  #conclude(
    command: Command,
    outcome: Exclude<Outcome, { is: 'cut' | 'readable' | 'refused' }>,
    answer: Answer,
    request: HookedRequest,
    { facts }: Exchange,
  ): Answer {
    if (!('record' in outcome)) return answer
    const { teller } = this.engine
    if (outcome.is === 'terminated') {
      request.answer = request.withFinishHook(answer)
      teller.tell('terminated', outcome.record, request)
      return request.answer
    }
    const { mark } = outcome.record
    facts.offset = mark.offset
    if (command.do !== 'create' && command.do !== 'append' && command.do !== 'concat') return answer
    if (command.do !== 'concat')
      facts.bytesReceived = mark.offset - (command.do === 'append' ? command.offset : 0)
    if (!request.hasFinished || mark.state !== 'finished') return request.withFinishHook(answer)
    let changed = answer
    try {
      changed = request.withFinishHook(answer)
      return changed
    } finally {
      request.answer = changed
      teller.tell('finished', outcome.record, request)
    }
  }

  /**
   * What was not expected is answered with 500, but not to HEAD: clients would begin again at byte 0, where they only
   * have to ask once more.
   */
  async #answerError(error: unknown, exchange: Exchange, method: string): Promise<Answer> {
    const { facts } = exchange
    const fromHook = hookRefusal(error)
    const unexpected = method === 'HEAD' ? 'busy' : 'internal'
    const refusal =
      error instanceof Refusal
        ? error
        : new Refusal(unexpected, { cause: error, ...(method === 'HEAD' && { retryAfterS: 1 }) })
    facts.code = fromHook ? 'refused-by-hook' : refusal.code
    facts.isUnheard = refusal.isUnheard
    if (error !== refusal && !fromHook) this.#onUnexpected(error, facts)
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
      this.#onUnexpected(error, facts)
      return answer
    }
  }

  /** A refusal in the words of who refused; but never in such that make who asks for an offset begin at byte 0. */
  #asHookSaid(refusal: Refusal, fromHook: ReturnType<typeof hookRefusal>, method: string): Answer {
    const ours = renderTus({ is: 'refused', refusal }, this.#abilities)
    const said = refusal instanceof HookRefusal ? changed(ours, refusal.response) : { ...ours, ...fromHook }
    if (method !== 'HEAD' || (said.status < 500 && said.status !== 429)) return said
    const busy = new Refusal('busy', { retryAfterS: 1 })
    return renderTus({ is: 'refused', refusal: busy }, this.#abilities)
  }

  #onUnexpected(error: unknown, facts: Exchange['facts']): void {
    facts.error = error
    this.#options.report?.({ is: 'request-failed', error })
  }

  /** Where forms and plain files are received; undefined when nobody wants it, or the store can not find names. */
  #plainRoom(options: TidemarkServerOptions): PlainRoom | undefined {
    const { plainPath } = options
    if (plainPath === undefined || this.engine.bytes.names === undefined) return undefined
    return new PlainRoom(plainPath, {
      engine: this.engine,
      options,
      enter: (exchange, writes) => this.#enter(exchange, writes),
      locationOf: (id, exchange) => this.#urls.locationOf(id, exchange),
      download: (record, exchange, request) => this.#download(record, exchange, request),
      answerError: (error, exchange, method) => this.#answerError(error, exchange, method),
    })
  }

  async #enter(exchange: Exchange, writes: boolean): Promise<Visit> {
    const { gate } = this.#options
    const admission = gate && (await this.#admit(gate, exchange, exchange.method))
    if (writes) admission?.demand('append')
    await this.start()
    const urlOf = (id: string) => this.#urls.locationOf(id, exchange)
    const locker = await this.#lockers.of(exchange)
    const requestOf = async (body?: () => Readable) => {
      const of = body ? new BodyExchange(exchange, body) : exchange
      const request = new HookedRequest(of, this.#options, this.#events, urlOf, this.#hooks)
      request.client = countedClient(this.#options, exchange)
      if (admission) request.admit(admission)
      request.locker = locker
      return request
    }
    return { exchange, requestOf, allow: (request, command) => this.#allow(request, command) }
  }

  /** What is done without a request has hooks all the same; they are shown one that asks for nothing. */
  #ownRequest(id: string): HookedRequest {
    const { path: mountPath } = this.#options
    const url = `http://localhost${mountPath.replace(/\/+$/, '')}/${encodeURIComponent(id)}`
    const exchange = new WebExchange(new Request(url, { method: 'POST' }))
    return new HookedRequest(
      exchange,
      this.#options,
      this.#events,
      (id) => this.#urls.locationOf(id, exchange),
      this.#hooks,
    )
  }

  readonly #events = {
    isHeard: (event: string) => this.listenerCount(event) > 0,
    // A listener that fails must not turn a stored upload into an error, nor keep the others from hearing.
    tell: (event: string, ...args: unknown[]) => {
      const onFailed = (error: unknown) => this.#options.report?.({ is: 'listener-failed', event, error })
      for (const listener of this.rawListeners(event)) {
        try {
          const result: unknown = Reflect.apply(listener, this, args)
          if (result instanceof Promise) result.catch(onFailed)
        } catch (error) {
          onFailed(error)
        }
      }
    },
  }
}

/** A HEAD that says nothing of tus is answered as one where there is something to download; else as one that should have. */
function asAsked(command: { readonly do: string; readonly isHead?: boolean }, refusal: Refusal): Refusal {
  return command.do === 'read' && command.isHead ? new Refusal('version-missing') : refusal
}
