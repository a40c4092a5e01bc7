/**
 * The pages plugin, as a browser meets it: a real Fastify on a real socket, and a small built page in a folder of
 * its own.
 */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify, { type FastifyInstance } from 'fastify'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type PagesOptions, pages } from '../../server/host/pages.ts'

const builtIndex = `<!doctype html><html><head>
<meta name="tidemark-endpoint" content="/files/" />
<meta name="tidemark-max-size" content="" />
<meta name="tidemark-disabled" content="" />
<meta name="tidemark-auth" content="none" />
<meta name="tidemark-instant" content="off" />
<script type="module" src="./assets/index-abc123.js"></script></head></html>`

let root: string
let app: FastifyInstance | undefined

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'tidemark-pages-'))
  await mkdir(join(root, 'assets'))
  await writeFile(join(root, 'index.html'), builtIndex)
  await writeFile(join(root, 'assets', 'index-abc123.js'), 'console.log(1)')
  await writeFile(join(root, 'assets', 'index-abc123.js.br'), 'as brotli')
})

afterEach(async () => {
  await app?.close()
  app = undefined
  await rm(root, { recursive: true, force: true })
})

async function serve(options: Partial<PagesOptions> = {}): Promise<string> {
  app = Fastify()
  app.get('/elsewhere', async () => 'of the host')
  await app.register(pages, { root, endpoint: '/files/', ...options })
  return app.listen({ host: '127.0.0.1', port: 0 })
}

/** fetch would ask for compressed answers, and tidy up the path. */
function rawStatus(base: string, path: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request(base, { path }, (answer) => {
      answer.resume()
      resolve(answer.statusCode)
    })
    asked.on('error', reject).end()
  })
}

describe('the page', () => {
  it('is told the endpoint and the largest upload by the server that serves it', async () => {
    const base = await serve({ endpoint: '/uploads/', maxSize: 5_000_000 })
    const html = await (await fetch(`${base}/`)).text()
    expect(html).toContain('<meta name="tidemark-endpoint" content="/uploads/"')
    expect(html).toContain('<meta name="tidemark-max-size" content="5000000"')
  })

  it('knows no largest upload when none is set', async () => {
    const html = await (await fetch(await serve())).text()
    expect(html).toContain('<meta name="tidemark-max-size" content=""')
  })

  it('is told what the server has switched off', async () => {
    const contentOf = async (options: Partial<PagesOptions>) => {
      const html = await (await fetch(await serve(options))).text()
      await app?.close()
      return html.match(/<meta name="tidemark-disabled" content="([^"]*)"/)?.[1]
    }
    expect(await contentOf({})).toBe('')
    expect(await contentOf({ disableDownload: true })).toBe('download')
    expect(await contentOf({ disableDownload: true, disableTermination: true })).toBe('download termination')
  })

  it('is told to hash files where this visitor can have an upload at once, and may do so only then', async () => {
    const toldOf = async (options: Partial<PagesOptions>) => {
      const answer = await fetch(await serve(options))
      const html = await answer.text()
      await app?.close()
      const told = html.match(/<meta name="tidemark-instant" content="([^"]*)"/)?.[1]
      const policy = answer.headers.get('content-security-policy')!
      const may = [policy.includes("'wasm-unsafe-eval'"), policy.includes("worker-src 'self'")]
      expect(may).toEqual([told === 'on', told === 'on'])
      return told
    }
    expect(await toldOf({})).toBe('off')
    expect(await toldOf({ instantUpload: 'off', auth: 'jwt' })).toBe('off')
    expect(await toldOf({ instantUpload: 'owner' })).toBe('off')
    expect(await toldOf({ instantUpload: 'owner', auth: 'tokens' })).toBe('on')
    expect(await toldOf({ instantUpload: 'global' })).toBe('on')
  })

  it('keeps an endpoint with signs of HTML and of replacement patterns what it is: text', async () => {
    const html = await (await fetch(await serve({ endpoint: "/\"><script>alert('&')</script>$&/" }))).text()
    expect(html).toContain('content="/&quot;&gt;&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;$&amp;/"')
    expect(html).not.toContain('<script>alert')
  })

  it('is HTML in UTF-8, for GET and for HEAD', async () => {
    const base = await serve()
    for (const method of ['GET', 'HEAD']) {
      const answer = await fetch(base, { method })
      expect(answer.status).toBe(200)
      expect(answer.headers.get('content-type')).toBe('text/html; charset=utf-8')
      await answer.arrayBuffer()
    }
  })

  it('is asked for again each time, and not sent again while it is the same', async () => {
    const base = await serve()
    const first = await fetch(base)
    await first.text()
    const etag = first.headers.get('etag') ?? ''
    expect(etag).toMatch(/^"[\w-]+"$/)
    expect(first.headers.get('cache-control')).toBe('no-cache')

    for (const kept of [etag, `W/${etag}`, `"other", ${etag}`, '*']) {
      const again = await fetch(base, { headers: { 'if-none-match': kept } })
      expect([kept, again.status, await again.text()]).toEqual([kept, 304, ''])
      expect(again.headers.get('etag')).toBe(etag)
    }
    const changed = await fetch(base, { headers: { 'if-none-match': '"other"' } })
    expect(changed.status).toBe(200)
    await changed.text()
  })

  it('has another tag when a setting has changed', async () => {
    const etags = []
    for (const endpoint of ['/files/', '/uploads/']) {
      const answer = await fetch(await serve({ endpoint }))
      etags.push(answer.headers.get('etag'))
      await answer.text()
      await app?.close()
    }
    expect(etags[0]).not.toBe(etags[1])
  })
})

describe('the assets', () => {
  it('are kept for a year: their names change with their content', async () => {
    const answer = await fetch(`${await serve()}/assets/index-abc123.js`, {
      headers: { 'accept-encoding': 'identity' },
    })
    expect(answer.status).toBe(200)
    expect(await answer.text()).toBe('console.log(1)')
    expect(answer.headers.get('cache-control')).toBe('public, max-age=31536000, immutable')
    expect(answer.headers.get('content-type')).toMatch(/^(text|application)\/javascript/)
  })

  it('come as they were compressed at build time, to those who take that', async () => {
    const base = new URL(`${await serve()}/assets/index-abc123.js`)
    const headers = await new Promise<Record<string, unknown>>((resolve, reject) => {
      request(base, { headers: { 'accept-encoding': 'br' } }, (answer) => {
        answer.resume()
        resolve(answer.headers)
      })
        .on('error', reject)
        .end()
    })
    expect(headers['content-encoding']).toBe('br')
    expect(headers.vary).toBe('accept-encoding')
    expect(headers['cache-control']).toContain('immutable')
  })

  it('that are not there are not found, and nobody keeps that for a year', async () => {
    const base = await serve()
    for (const path of ['/assets/index-old.js', '/assets/', '/assets', '/index.html', '/nothing']) {
      const answer = await fetch(base + path)
      await answer.text()
      expect([path, answer.status]).toEqual([path, 404])
      expect(answer.headers.get('cache-control') ?? '').not.toContain('immutable')
    }
  })

  it('end at their folder', async () => {
    const base = await serve()
    for (const path of ['/assets/../index.html', '/assets/%2e%2e/index.html', '/assets/..%2findex.html']) {
      expect([path, await rawStatus(base, path)]).not.toEqual([path, 200])
    }
  })
})

describe('the security headers', () => {
  it('are on the page and on its assets', async () => {
    const base = await serve()
    for (const path of ['/', '/assets/index-abc123.js']) {
      const answer = await fetch(base + path, { headers: { 'accept-encoding': 'identity' } })
      await answer.text()
      const { headers } = answer
      expect(headers.get('content-security-policy')).toBe(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; " +
          "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
      )
      expect(headers.get('x-content-type-options')).toBe('nosniff')
      expect(headers.get('referrer-policy')).toBe('no-referrer')
      expect(headers.get('x-frame-options')).toBe('DENY')
      expect(headers.get('cross-origin-opener-policy')).toBe('same-origin')
      expect(headers.get('cross-origin-resource-policy')).toBe('same-origin')
      expect(headers.get('permissions-policy')).toContain('camera=(), ')
    }
  })

  it('do not promise https for a host that may have none', async () => {
    const answer = await fetch(await serve())
    await answer.text()
    expect(answer.headers.get('strict-transport-security')).toBeNull()
  })

  it('are not on routes of the host', async () => {
    const answer = await fetch(`${await serve()}/elsewhere`)
    expect(await answer.text()).toBe('of the host')
    expect(answer.headers.get('content-security-policy')).toBeNull()
    expect(answer.headers.get('x-content-type-options')).toBeNull()
  })
})

describe('a server without a built page', () => {
  it('says so at start, and how to build it', async () => {
    await expect(serve({ root: join(root, 'nowhere') })).rejects.toThrow(/no built page in .*npx vite build/)
  })

  it('says so too when the page was built by another version', async () => {
    await writeFile(join(root, 'index.html'), '<!doctype html>')
    await expect(serve()).rejects.toThrow('<meta name="tidemark-endpoint">')
  })
})
