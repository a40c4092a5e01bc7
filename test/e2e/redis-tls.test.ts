import { expect, it, onTestFinished } from 'vitest'
import { makeCertificate, tlsSettings } from '../support/certificate.ts'
import { temporaryFolder } from '../support/folder.ts'
import { freePort } from '../support/free-port.ts'
import { startRedis } from '../support/redis.ts'
import { startServer } from '../support/server-process.ts'

it('trusts a Redis whose certificate an authority of its owner gave out, when Node is told of it', async () => {
  const certificate = await makeCertificate(await temporaryFolder())
  const port = await freePort()
  const redis = await startRedis({ args: tlsSettings(port, certificate) })
  onTestFinished(() => redis.stop())
  const redisUrl = `rediss://127.0.0.1:${port}`
  const start = async (env: Record<string, string>) =>
    startServer({ dir: await temporaryFolder(), redisUrl, env })

  const refused = start({})
  await expect(refused).rejects.toThrow(`--redis-url ${redisUrl} can not be used: `)
  const server = await start({ NODE_EXTRA_CA_CERTS: certificate.caFile })
  onTestFinished(async () => void (await server.stop()))
  const response = await fetch(`${server.url}/files/`, {
    method: 'POST',
    headers: { 'Tus-Resumable': '1.0.0', 'Upload-Length': '5' },
  })
  expect(response.status).toBe(201)
})
