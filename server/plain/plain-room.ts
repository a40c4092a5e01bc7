/**
 * The doors for tools that know nothing of tus: forms, and PUT by name. Behind them are the same uploads, under the same
 * rules; each has its URL below the base path as if it had come by tus.
 */
import type { Exchange, Reply } from '../host/exchange.ts'
import { isBelow } from '../host/tus-mount.ts'
import { corsHeaders } from '../protocol/cors.ts'
import { parsePlain, plainMethods } from '../protocol/plain.ts'
import type { Door } from './door.ts'
import { Forms, formError } from './forms.ts'
import { NamedUploads } from './named-uploads.ts'
import { Puts } from './puts.ts'
import { formPage } from './words.ts'

export class PlainRoom {
  /** Whether a URL belongs to this room. */
  readonly owns: (url: string) => boolean
  readonly #path: string
  readonly #door: Door
  readonly #forms: Forms
  readonly #puts: Puts

  constructor(path: string, door: Door) {
    this.#path = path.replace(/\/+$/, '')
    this.owns = isBelow(this.#path)
    this.#door = door
    const uploads = new NamedUploads(door.engine)
    this.#forms = new Forms(door, uploads)
    this.#puts = new Puts(door, uploads)
  }

  async reply(exchange: Exchange): Promise<Reply> {
    const reply = await this.#answer(exchange)
    if (reply.is !== 'answer') return reply
    const isPreflight = exchange.method === 'OPTIONS'
    const allowedHeaders = ['Content-Range', 'Upload-Key', ...(this.#door.options.allowedHeaders ?? [])]
    const cors = corsHeaders(exchange.headers, { ...this.#door.options, allowedHeaders }, isPreflight)
    if ('Access-Control-Allow-Methods' in cors) cors['Access-Control-Allow-Methods'] = plainMethods
    const { 'Tus-Resumable': _, 'Tus-Version': __, ...own } = reply.headers
    return { ...reply, headers: { ...own, ...cors } }
  }

  async #answer(exchange: Exchange): Promise<Reply> {
    const { method } = exchange
    try {
      return await this.#run(exchange)
    } catch (error) {
      const said = await this.#door.answerError(error, exchange, method)
      const { headers, ...answer } = method === 'POST' ? formError(said, exchange) : said
      return {
        is: 'answer',
        ...answer,
        headers: answer.status === 405 ? { ...headers, Allow: plainMethods } : headers,
      }
    }
  }

  async #run(exchange: Exchange): Promise<Reply> {
    const { method, url, headers } = exchange
    if (method === 'OPTIONS') return { is: 'answer', status: 204, headers: { Allow: plainMethods } }
    const visit = await this.#door.enter(exchange, method === 'POST' || method === 'PUT')
    const command = parsePlain({ method, url, headers }, this.#path)
    switch (command.do) {
      case 'show-form':
        return { is: 'answer', ...formPage(`${this.#path}/`) }
      case 'form':
        return this.#forms.receive(visit, command.key)
      case 'put':
        return this.#puts.put(command, visit)
      case 'ask':
        return this.#puts.ask(command.name, visit)
      case 'read':
        return this.#puts.read(command.name, visit)
      case 'remove':
        return this.#puts.remove(command.name, visit)
    }
  }
}
