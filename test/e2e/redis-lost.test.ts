import { expect, it, onTestFinished, vi } from 'vitest'
import { temporaryFolder } from '../support/folder.ts'
import { randomBytes, sha256 } from '../support/random-file.ts'
import { startRedis } from '../support/redis.ts'
import { startServer } from '../support/server-process.ts'
import { startTcpProxy } from '../support/tcp-proxy.ts'
import { startUpload } from '../support/tus-client.ts'

const MiB = 1024 * 1024
const size = 64 * MiB
const version = { 'Tus-Resumable': '1.0.0' }

it('goes on with the same upload when Redis is killed in the middle and comes back empty', async () => {
  const content = randomBytes('redis is lost', size)
  const redis = await startRedis()
  onTestFinished(() => redis.stop())
  const server = await startServer({ dir: await temporaryFolder(), redisUrl: redis.url })
  onTestFinished(async () => void (await server.stop()))
  const wire = await startTcpProxy(server.port)
  wire.bytesPerSecond = 30 * MiB
  onTestFinished(() => wire.close())
  let lost: Promise<void> | undefined

  const { done, exchanges } = startUpload(content, {
    endpoint: `${wire.url}/files/`,
    chunkSize: 4 * MiB,
    onProgress: (sent) => {
      if (lost !== undefined || sent < size / 3) return
      lost = loseRedis()
    },
  })
  const url = await done
  await lost

  expect(exchanges.filter(({ method }) => method === 'POST').map(({ status }) => status)).toEqual([201])
  const response = await fetch(url)
  expect(await sha256(new Uint8Array(await response.arrayBuffer()))).toBe(await sha256(content))

  async function loseRedis(): Promise<void> {
    await redis.kill()
    // Refused at once and in words that clients wait for, while nobody can say who else is writing.
    const create = () =>
      fetch(`${server.url}/files/`, { method: 'POST', headers: { ...version, 'Upload-Length': '1' } })
    await vi.waitFor(async () => expect((await create()).status).toBe(503), { timeout: 10_000 })
    expect((await fetch(`${server.url}/health/ready`)).status).toBe(503)
    await redis.restart()
  }
})
