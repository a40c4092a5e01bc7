// Quotas, types and the reserve as requests meet them: statuses, headers, and who is counted behind a proxy.
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { clientOf } from '../../server/host/client-address.ts'
import { LmdbLedger } from '../../stores/local/lmdb-ledger.ts'
import { bytesAt, bytesType, startSite } from '../protocol/exchange.ts'
import { temporaryFolder } from '../support/folder.ts'
import { startServer } from '../support/server-process.ts'
import { mayMount, mounted } from '../support/small-disk.ts'

const MiB = 1024 * 1024
const version = { 'Tus-Resumable': '1.0.0' }
const metadata = (type: string) => ({ 'Upload-Metadata': `filetype ${Buffer.from(type).toString('base64')}` })

async function serve(args: string[], dir?: string) {
  const server = await startServer({ dir: dir ?? join(await temporaryFolder(), 'uploads'), args })
  onTestFinished(async () => void (await server.stop()))
  const post = async (headers: Record<string, string>, body?: Buffer) => {
    const url = `${server.url}/files/`
    const answer = await fetch(url, {
      method: 'POST',
      headers: { ...version, ...headers },
      body: body ?? null,
    })
    return { status: answer.status, headers: answer.headers, text: await answer.text() }
  }
  return { server, post }
}

describe('an address', () => {
  it.each([
    ['192.0.2.1', '192.0.2.1'],
    ['::ffff:192.0.2.1', '192.0.2.1'],
    ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['2001:0DB8:0001:0002::1', '2001:db8:1:2::/64'],
    ['2001:db8::1', '2001:db8:0:0::/64'],
    ['::1', '0:0:0:0::/64'],
    ['fe80::1%eth0', 'fe80:0:0:0::/64'],
    ['64:ff9b::192.0.2.33', '64:ff9b:0:0::/64'],
    ['', undefined],
    [undefined, undefined],
  ])('%s is counted as %s', (address, client) => {
    expect(clientOf(address)).toBe(client)
  })

  it('is the one that a trusted proxy names, and any other behind it has its own count', async () => {
    const { server, post } = await serve(['--address-quota-open-uploads', '1', '--behind-proxy'])
    const from = async (address: string) =>
      (await post({ 'Upload-Length': '5', 'X-Forwarded-For': address })).status
    expect([await from('192.0.2.1'), await from('192.0.2.1'), await from('192.0.2.2')]).toEqual([
      201, 429, 201,
    ])
    expect([await from('2001:db8::1'), await from('2001:db8::2'), await from('2001:db8:0:1::1')]).toEqual([
      201, 429, 201,
    ])
    expect(server.logs().filter(({ level }) => Number(level) >= 50)).toEqual([])
  })

  it('that somebody claims without a proxy does not count', async () => {
    const { post } = await serve(['--address-quota-open-uploads', '1'])
    const from = async (address: string) =>
      (await post({ 'Upload-Length': '5', 'X-Forwarded-For': address })).status
    expect([await from('192.0.2.1'), await from('192.0.2.2')]).toEqual([201, 429])
  })

  it('is kept with an upload only where addresses are counted', async () => {
    const directory = await temporaryFolder()
    const site = async (address: object) => {
      const ledger = new LmdbLedger({ directory })
      const { server, create } = await startSite({
        quotas: { ledger, owner: { openUploads: 9 }, address, perIdentity: false },
      }).then((site) => ({ server: site.server, create: () => site.create(5) }))
      const id = (await create()).split('/').at(-1)!
      return (await server.engine.bytes.look(id))!.head.client
    }
    expect(await site({})).toBeUndefined()
    expect(await site({ openUploads: 9 })).toBe('127.0.0.1')
  })
})

describe('a refusal', () => {
  it('of a creation has Retry-After, which pages of other sites may read; HEAD and OPTIONS are never refused', async () => {
    const ledger = new LmdbLedger({ directory: await temporaryFolder() })
    const site = await startSite({
      quotas: { ledger, owner: { openUploads: 1, runningRequests: 1 }, address: {}, perIdentity: false },
    })
    const url = await site.create(10)
    const refused = await site.send('POST', '/files', { 'Upload-Length': 5, Origin: 'https://a.example' })
    expect([refused.status, refused.headers['retry-after']]).toEqual([429, '10'])
    expect(refused.headers['access-control-expose-headers']).toContain('Retry-After')
    expect(refused.text.trim()).toBe(
      'over-quota: 1 unfinished upload is allowed at a time; try again when one is finished or deleted',
    )
    expect(await site.shown(url)).toBe('0/10')
    expect((await site.send('OPTIONS', '/files')).status).toBe(200)
    expect((await site.append(url, 0, 'abc')).status).toBe(204)
    expect((await site.send('PATCH', url, bytesAt(3, { 'Content-Length': 0 }))).status).toBe(204)
  })

  it('comes before any data: a client that waits for 100 Continue sends nothing', async () => {
    const ledger = new LmdbLedger({ directory: await temporaryFolder() })
    const site = await startSite({
      quotas: { ledger, owner: { openUploads: 1 }, address: {}, perIdentity: false },
    })
    await site.create(10)
    const more = { ...bytesType, 'Upload-Length': 5, 'Content-Length': 5, Expect: '100-continue' }
    const request = site.open('POST', '/files', more)
    expect((await request.answer).status).toBe(429)
  })
})

describe('--allowed-types', () => {
  it('takes what says that it is of such a type, and refuses anything else with 415', async () => {
    const { post } = await serve(['--allowed-types', 'image/*,application/pdf'])
    const status = async (headers: Record<string, string>) =>
      (await post({ 'Upload-Length': '5', ...headers })).status
    expect(await status(metadata('image/png'))).toBe(201)
    expect(await status(metadata('Application/PDF; version=1.7'))).toBe(201)
    expect(await status(metadata('application/pdfx'))).toBe(415)
    for (const type of ['text/html', 'image/', 'image/*', 'image/png/x', 'image/p ng', '*/*'])
      expect([type, await status(metadata(type))]).toEqual([type, 415])
    const none = await post({ 'Upload-Length': '5' })
    expect([none.status, none.text.trim()]).toEqual([
      415,
      'type-refused: only these types are accepted here: image/*, application/pdf; say it as filetype in Upload-Metadata',
    ])
    // What parts are is said of their final.
    const part = await post({ 'Upload-Length': '0', 'Upload-Concat': 'partial' })
    expect(part.status).toBe(201)
    const path = new URL(part.headers.get('location')!).pathname
    expect((await post({ 'Upload-Concat': `final;${path}` })).status).toBe(415)
    expect((await post({ 'Upload-Concat': `final;${path}`, ...metadata('image/gif') })).status).toBe(201)
  })
})

describe.runIf(mayMount())('--reserve-free-space, on a disk of 16 MiB', () => {
  it('refuses with 507, before any data, what would leave less', async () => {
    const disk = await mounted('size=16m')
    const { post } = await serve(['--reserve-free-space', '8MiB'], join(disk, 'uploads'))
    const refused = await post({ 'Upload-Length': String(9 * MiB) })
    expect([refused.status, refused.text]).toEqual([507, expect.stringMatching(/no room/)])
    const made = await post({ 'Upload-Length': String(6 * MiB) })
    expect(made.status).toBe(201)
    const url = made.headers.get('location')!
    const send = async (offset: number, bytes: number) => {
      const headers = { ...version, ...bytesType, 'Upload-Offset': String(offset) }
      const answer = await fetch(url, { method: 'PATCH', headers, body: Buffer.alloc(bytes) })
      return answer.status
    }
    expect(await send(0, 3 * MiB)).toBe(204)
    await writeFile(join(disk, 'ballast'), Buffer.alloc(4 * MiB))
    expect(await send(3 * MiB, 3 * MiB)).toBe(507)
    expect((await fetch(url, { method: 'HEAD', headers: version })).headers.get('upload-offset')).toBe(
      String(3 * MiB),
    )
    await rm(join(disk, 'ballast'))
    expect(await send(3 * MiB, 3 * MiB)).toBe(204)
    expect((await post({ 'Upload-Length': String(3 * MiB) })).status).toBe(507)
  })
})
