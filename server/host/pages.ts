/**
 * The page that people see, at `/`. What `vite build` made is served as it is, but for the facts that only
 * the running server knows (the tus endpoint, the largest upload, what is switched off): they are filled into <meta> tags once, at start.
 * Its security headers stay in here: answers of the tus endpoint and of a host's own routes do not get them.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { join, resolve } from 'node:path'
import fastifyStatic from '@fastify/static'
import fp from 'fastify-plugin'
import { escapeHtml } from './html.ts'

export interface PagesOptions {
  /** Folder of the built page: holds index.html and assets/. */
  root: string
  /** Base path of the tus endpoint, as the browser shall ask for it, such as `/files/`. */
  endpoint: string
  /** Largest upload in bytes, so that the page can refuse a file before its first byte. */
  maxSize?: number
  /** Downloads are refused, so the page offers no links. */
  disableDownload?: boolean
  /** DELETE is refused, so the page sends none for what is cancelled. */
  disableTermination?: boolean
  /** Nobody tells how far uploads are, so the page does not ask. */
  disableProgress?: boolean
  /** How people sign in; the page asks for a token where they have to. */
  auth?: 'none' | 'tokens' | 'jwt'
  /** Whose finished uploads may stand for a new one of the same bytes; the page hashes files where it is of use. */
  instantUpload?: 'off' | 'owner' | 'global'
}

/**
 * Nothing but our own files, and nothing inline. `data:` is for icons in stylesheets, `blob:` for the previews of
 * chosen images. The page may not be framed: a click in it would upload for somebody else.
 * Where files are hashed, a worker does it, in WebAssembly; its own file comes under the same words.
 */
const policyFor = (isInstant: boolean) =>
  [
    "default-src 'none'",
    isInstant ? "script-src 'self' 'wasm-unsafe-eval'" : "script-src 'self'",
    ...(isInstant ? ["worker-src 'self'"] : []),
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join('; ')

/** What a page can ask a browser for, and this one never does: also not in the name of something that got in. */
const permissionsPolicy = [
  ...['accelerometer', 'camera', 'display-capture', 'geolocation', 'gyroscope', 'magnetometer', 'microphone'],
  ...['midi', 'payment', 'usb'],
]
  .map((name) => `${name}=()`)
  .join(', ')

// No Strict-Transport-Security: whether a host is for https alone is known to what ends TLS, not to this server.
const securityHeaders = {
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  'referrer-policy': 'no-referrer',
  'cross-origin-resource-policy': 'same-origin',
  'cross-origin-opener-policy': 'same-origin',
  'permissions-policy': permissionsPolicy,
}

const oneYearMs = 365 * 24 * 60 * 60 * 1000

export const pages = fp<PagesOptions>(
  async (app, options) => {
    const root = resolve(options.root)
    const html = fillIn(readIndex(root), options)
    const isInstant = hasInstantUploads(options)
    const headers = { 'content-security-policy': policyFor(isInstant), ...securityHeaders }
    const etag = `"${createHash('sha256').update(html).digest('base64url').slice(0, 27)}"`

    await app.register(async (scope) => {
      scope.addHook('onRequest', async (_request, reply) => {
        reply.headers(headers)
      })

      scope.get('/', async (request, reply) => {
        // May be kept, but must be asked for again: it names the assets of this very build.
        reply.headers({ 'cache-control': 'no-cache', etag })
        if (isKept(request.headers['if-none-match'], etag)) return reply.code(304).send()
        return reply.type('text/html; charset=utf-8').send(html)
      })

      // The names carry a hash of the content, so a name never means something else.
      await scope.register(fastifyStatic, {
        root: join(root, 'assets'),
        prefix: '/assets/',
        decorateReply: false,
        index: false,
        immutable: true,
        maxAge: oneYearMs,
        preCompressed: true,
        setHeaders: (reply) => {
          reply.setHeader('vary', 'accept-encoding')
        },
      })
    })
  },
  { name: 'tidemark-pages', fastify: '5.x' },
)

function readIndex(root: string): string {
  const path = join(root, 'index.html')
  if (!existsSync(path) || !existsSync(join(root, 'assets'))) {
    throw new Error(
      `There is no built page in ${root}. Build it with "npx vite build --config web/vite.config.ts", or run without the page.`,
    )
  }
  return readFileSync(path, 'utf8')
}

/** With `owner` nobody has anything whom the server does not know. */
function hasInstantUploads({ instantUpload = 'off', auth = 'none' }: PagesOptions): boolean {
  return instantUpload === 'global' || (instantUpload === 'owner' && auth !== 'none')
}

function fillIn(html: string, options: PagesOptions): string {
  const { endpoint, maxSize, disableDownload, disableTermination, disableProgress, auth = 'none' } = options
  const disabled = [
    ...(disableDownload ? ['download'] : []),
    ...(disableTermination ? ['termination'] : []),
    ...(disableProgress ? ['progress'] : []),
  ]
  const contents = {
    'tidemark-endpoint': endpoint,
    'tidemark-max-size': maxSize === undefined ? '' : String(maxSize),
    'tidemark-disabled': disabled.join(' '),
    'tidemark-auth': auth,
    'tidemark-instant': hasInstantUploads(options) ? 'on' : 'off',
  }
  return Object.entries(contents).reduce((filled, [name, content]) => fillMeta(filled, name, content), html)
}

function fillMeta(html: string, name: string, content: string): string {
  const tag = new RegExp(`<meta name="${name}" content="[^"]*"`)
  if (!tag.test(html)) throw new Error(`The built page has no <meta name="${name}">; build it anew.`)
  // As a function: in a replacement text, `$&` would have a meaning.
  return html.replace(tag, () => `<meta name="${name}" content="${escapeHtml(content)}"`)
}

/** RFC 9110, 13.1.2: a list of tags, compared weakly (a proxy that compresses makes ours weak), or `*`. */
function isKept(ifNoneMatch: string | undefined, etag: string): boolean {
  if (ifNoneMatch === undefined) return false
  return ifNoneMatch.split(',').some((tag) => tag.trim() === '*' || tag.trim().replace(/^W\//, '') === etag)
}
