import { once } from 'node:events'
import fs, { createReadStream, type ReadStream } from 'node:fs'
import { truncate, writeFile } from 'node:fs/promises'
import { Agent, createServer, get, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { sendReply } from '../../server/host/send-reply.ts'
import { temporaryFolder } from '../support/folder.ts'

const MiB = 1024 * 1024
const content = Buffer.alloc(8 * MiB, 'abcdefg')

/** A server that answers with a file of 8 MiB; `before` has the response first. */
async function serve(before: (res: ServerResponse, file: string) => void = () => {}) {
  const path = join(await temporaryFolder(), 'file')
  await writeFile(path, content)
  const sent: { file: ReadStream; done: Promise<void> }[] = []
  const server = createServer((req, res) => {
    const file = createReadStream(path, { highWaterMark: 256 * 1024 })
    before(res, path)
    const headers = { 'Content-Length': String(content.length) }
    const done = sendReply(
      req,
      res,
      { is: 'answer', status: 200, headers, body: file },
      { facts: {} as never, isEnding: false },
    )
    sent.push({ file, done })
  }).listen(0, '127.0.0.1')
  // Who waits for more is not helped by the end of the connection.
  server.keepAliveTimeout = 0
  onTestFinished(() => void server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const agent = new Agent({ keepAlive: true })
  onTestFinished(() => agent.destroy())
  const ask = async (): Promise<IncomingMessage> => {
    const request = get({ port, host: '127.0.0.1', agent })
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    return response
  }
  return { ask, sent }
}

async function bodyOf(response: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of response) chunks.push(chunk)
  return Buffer.concat(chunks)
}

describe('a file that is sent', () => {
  it('arrives byte for byte, and the memory of each piece is given back', async () => {
    const { ask, sent } = await serve()
    const reads = vi.spyOn(fs, 'read')
    onTestFinished(() => void vi.restoreAllMocks())
    expect((await bodyOf(await ask())).equals(content)).toBe(true)
    await sent[0]!.done
    const pieces = reads.mock.calls.map(([, buffer]) => buffer as unknown as Buffer)
    expect(pieces.length).toBeGreaterThanOrEqual(32)
    // Behind the end of the file there is one read more, of nothing.
    expect(pieces.filter(({ length }) => length > 0).length).toBeLessThanOrEqual(1)
  })

  it('is closed when its reader leaves', async () => {
    const { ask, sent } = await serve()
    const response = await ask()
    await once(response, 'readable')
    response.destroy()
    await sent[0]!.done
    await vi.waitFor(() => expect(sent[0]!.file.closed).toBe(true))
  })

  it('that ends too early or can not be read cuts the connection, so that nobody takes it for whole', async () => {
    const { ask, sent } = await serve((_res, path) => void truncate(path, MiB))
    await expect(bodyOf(await ask())).rejects.toThrow('aborted')
    await sent[0]!.done
    const failing = await serve()
    vi.spyOn(fs, 'read').mockImplementation(((...args: unknown[]) => {
      const done = args.at(-1) as (error: Error) => void
      setImmediate(() => done(new Error('EIO: a bad sector')))
    }) as never)
    onTestFinished(() => void vi.restoreAllMocks())
    await expect(failing.ask().then(bodyOf)).rejects.toThrow()
    await failing.sent[0]!.done
    expect(failing.sent[0]!.file.destroyed).toBe(true)
  })

  it('stays in memory for who has put a write of its own in the way', async () => {
    const kept: Buffer[] = []
    const { ask } = await serve((res) => {
      const write = res.write.bind(res) as (chunk: Buffer) => boolean
      res.write = ((chunk: Buffer) => {
        kept.push(chunk)
        return write(chunk)
      }) as never
    })
    expect((await bodyOf(await ask())).equals(content)).toBe(true)
    expect(Buffer.concat(kept).equals(content)).toBe(true)
  })
})
