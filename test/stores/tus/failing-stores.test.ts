// Stores that fail, stop in the middle, forget, or are slow: what the client is told, that nothing hangs, and that the
// next request finds the upload as the store has it.

import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { ERRORS, type Upload } from '@tus/utils'
import { describe, expect, it } from 'vitest'
import { bytesAt, bytesType, startSite } from '../../protocol/exchange.ts'
import { deferred } from '../../support/deferred.ts'
import { MapStore } from '../../support/map-store.ts'

const MiB = 1024 * 1024

/** What a store may throw, and what PATCH, HEAD and POST answer then. */
const failures: [string, unknown, { patch: number; head: number }][] = [
  ['an Error', new Error('disk /secret/path is broken'), { patch: 500, head: 423 }],
  ['FILE_WRITE_ERROR', ERRORS.FILE_WRITE_ERROR, { patch: 500, head: 423 }],
  ['503', { status_code: 503, body: 'later' }, { patch: 503, head: 423 }],
  ['429', { status_code: 429, body: 'slowly' }, { patch: 503, head: 423 }],
  ['507', { status_code: 507, body: 'full' }, { patch: 507, head: 423 }],
  ['ENOSPC', Object.assign(new Error('no space'), { code: 'ENOSPC' }), { patch: 507, head: 423 }],
  ['FILE_NO_LONGER_EXISTS', ERRORS.FILE_NO_LONGER_EXISTS, { patch: 410, head: 410 }],
  ['403', { status_code: 403, body: 'not you' }, { patch: 403, head: 403 }],
]

describe.each(failures)('a store that fails with %s', (_, error, status) => {
  it('in write -> the upload stays where the store has it, and is gone on with', async () => {
    const store = new FailingStore()
    const site = await startSite({ datastore: store })
    const url = await site.create(6)
    store.failsAfterBytes = 3
    store.error = error
    const answer = await site.append(url, 0, 'abcdef')
    expect(answer.status).toBe(status.patch)
    expectSentence(answer.text)
    store.failsAfterBytes = Number.POSITIVE_INFINITY
    expect(await site.shown(url)).toBe('3/6')
    expect(await site.append(url, 3, 'def')).toMatchObject({ status: 204 })
    expect(String(store.bytesOf(idOf(url)))).toBe('abcdef')
  })

  it('in getUpload -> HEAD is never told to begin again, PATCH is told why, the next request works', async () => {
    const store = new FailingStore()
    const site = await startSite({ datastore: store })
    const url = await site.create(3)
    store.fails = 'getUpload'
    store.error = error
    expect(await site.shown(url)).toBe(String(status.head))
    const answer = await site.append(url, 0, 'abc')
    expect(answer.status).toBe(status.patch)
    expectSentence(answer.text)
    store.fails = undefined
    expect(await site.append(url, 0, 'abc')).toMatchObject({ status: 204 })
  })

  it('in create -> POST is told why, and the next one works', async () => {
    const store = new FailingStore()
    const site = await startSite({ datastore: store })
    store.fails = 'create'
    store.error = error
    const answer = await site.send('POST', '/files', { 'Upload-Length': 3, ...bytesType }, 'abc')
    expect(answer.status).toBe(status.patch)
    expectSentence(answer.text)
    store.fails = undefined
    expect(await site.shown(await site.createFinished('abc'))).toBe('3/3')
  })
})

describe('a store that stops in the middle of a body', () => {
  it('by returning early -> the rest of a large body is refused, and the upload goes on from what it has', async () => {
    class Early extends MapStore {
      takes = 1
      override async write(source: Readable, id: string, offset: number): Promise<number> {
        let end = offset
        for await (const chunk of source as AsyncIterable<Buffer>) {
          this.keep(id, chunk)
          end += chunk.length
          if (--this.takes === 0) break
        }
        return end
      }
    }
    const store = new Early()
    const site = await startSite({ datastore: store })
    const content = Buffer.alloc(8 * MiB, 'abcdefg')
    const url = await site.create(content.length)
    const answer = await site.send('PATCH', url, bytesAt(0), content)
    expect(answer.status).toBe(500)
    const offset = Number((await site.head(url)).headers['upload-offset'])
    expect(offset).toBeGreaterThan(0)
    expect(offset).toBeLessThan(content.length)
    store.takes = -1
    const rest = content.subarray(offset)
    expect(await site.send('PATCH', url, bytesAt(offset), rest)).toMatchObject({ status: 204 })
    expect(store.bytesOf(idOf(url)).equals(content)).toBe(true)
  })

  it('by saying less than it was given -> the answer says what it kept, and the upload is not finished', async () => {
    class Forgetful extends MapStore {
      forgets = true
      override async write(source: Readable, id: string, offset: number): Promise<number> {
        const end = await super.write(source, id, offset)
        if (!this.forgets) return end
        this.content.set(id, [this.bytesOf(id).subarray(0, 2)])
        return 2
      }
    }
    const store = new Forgetful()
    const site = await startSite({ datastore: store })
    const url = await site.create(9)
    expect(await site.append(url, 0, 'abcd')).toMatchObject({
      status: 204,
      headers: { 'upload-offset': '2' },
    })
    expect(await site.append(url, 2, 'cdefghi')).toMatchObject({ status: 500 })
    expect(await site.shown(url)).toBe('2/9')
    store.forgets = false
    expect(await site.append(url, 2, 'cdefghi')).toMatchObject({ status: 204 })
    expect(String(store.bytesOf(idOf(url)))).toBe('abcdefghi')
  })

  it('by failing before it has read anything -> nothing hangs', async () => {
    class Closed extends MapStore {
      override write(): Promise<number> {
        throw new Error('no')
      }
    }
    const site = await startSite({ datastore: new Closed() })
    const url = await site.create(4 * MiB)
    expect(await site.send('PATCH', url, bytesAt(0), Buffer.alloc(4 * MiB))).toMatchObject({ status: 500 })
    expect(await site.shown(url)).toBe(`0/${4 * MiB}`)
    expect(site.reports).toMatchObject([{ is: 'request-failed' }])
  })

  it('by destroying the body it reads -> nothing hangs, and the process lives', async () => {
    class Destroying extends MapStore {
      override async write(source: Readable): Promise<number> {
        source.destroy(new Error('had enough'))
        throw ERRORS.FILE_WRITE_ERROR
      }
    }
    const site = await startSite({ datastore: new Destroying() })
    const url = await site.create(4 * MiB)
    expect(await site.send('PATCH', url, bytesAt(0), Buffer.alloc(4 * MiB))).toMatchObject({ status: 500 })
    expect(await site.shown(url)).toBe(`0/${4 * MiB}`)
  })
})

it('an upload that says more than it can hold is never shown as finished', async () => {
  class Lying extends MapStore {
    override async getUpload(id: string): Promise<Upload> {
      return Object.assign(await super.getUpload(id), { offset: 99 })
    }
  }
  const site = await startSite({ datastore: new Lying() })
  expect(await site.shown(await site.create(3))).toBe('423')
})

it('a slow store slows the client down: what it has not read yet is not piled up', async () => {
  const mayRead = deferred()
  let read = 0
  class Slow extends MapStore {
    override async write(source: Readable, _: string, offset: number): Promise<number> {
      await mayRead.promise
      for await (const chunk of source as AsyncIterable<Buffer>) read += chunk.length
      return offset + read
    }
  }
  const datastore = new Slow()
  const site = await startSite({ datastore })
  const sizeBytes = 128 * MiB
  const url = await site.create(sizeBytes)
  const request = site.open('PATCH', url, bytesAt(0, { 'Content-Length': sizeBytes }))
  const piece = Buffer.alloc(MiB)
  const before = process.memoryUsage().arrayBuffers
  let sent = 0
  // The buffers between here and the store fill up, and then nothing more is taken from us.
  for (let isFull = false; !isFull && sent < sizeBytes; sent += piece.length) {
    const isTaken = request.write(piece)
    isFull = !isTaken && (await Promise.race([request.drained(), sleep(500, true)])) === true
  }
  expect(sent).toBeLessThan(64 * MiB)
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(64 * MiB)
  mayRead.resolve()
  while (sent < sizeBytes) {
    await request.drained()
    request.write(piece)
    sent += piece.length
  }
  expect(await request.answer).toMatchObject({ status: 204, headers: { 'upload-offset': `${sizeBytes}` } })
  expect(read).toBe(sizeBytes)
})

it('a store gives a body back that is shorter than it said -> the download is cut, not ended', async () => {
  class Short extends MapStore {
    read(): Readable {
      return Readable.from([Buffer.from('ab')])
    }
  }
  const site = await startSite({ datastore: new Short() })
  const url = await site.createFinished('abcdef')
  await expect(site.send('GET', url)).rejects.toThrow('the connection ended')
})

it('a store whose read fails before the first byte -> 500, not half an answer', async () => {
  class Unreadable extends MapStore {
    read(): Readable {
      return new Readable({
        read() {
          this.destroy(new Error('gone /secret/path'))
        },
      })
    }
  }
  const site = await startSite({ datastore: new Unreadable() })
  const answer = await site.send('GET', await site.createFinished('abcdef'))
  expect(answer.status).toBe(500)
  expectSentence(answer.text)
})

/** A store that fails where it is told to, with what it is told to. */
class FailingStore extends MapStore {
  fails: 'create' | 'getUpload' | undefined
  failsAfterBytes = Number.POSITIVE_INFINITY
  error: unknown

  override async create(upload: Upload): Promise<Upload> {
    if (this.fails === 'create') throw this.error
    return super.create(upload)
  }

  override async getUpload(id: string): Promise<Upload> {
    if (this.fails === 'getUpload') throw this.error
    return super.getUpload(id)
  }

  override async write(source: Readable, id: string, offset: number): Promise<number> {
    if (this.failsAfterBytes === Number.POSITIVE_INFINITY) return super.write(source, id, offset)
    for await (const chunk of source as AsyncIterable<Buffer>) {
      this.keep(id, chunk.subarray(0, this.failsAfterBytes))
      break
    }
    throw this.error
  }
}

function expectSentence(text: string): void {
  expect(text).not.toMatch(/secret|Error:|\n\s+at /)
  expect(text.trim().length).toBeGreaterThan(3)
}

function idOf(url: string): string {
  return url.split('/').at(-1)!
}
