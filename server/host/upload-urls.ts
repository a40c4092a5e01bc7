/** Which upload a URL means, and which URL an upload has: as Tidemark names them, or as an application wants it. */
import { validateHeaderValue } from 'node:http'
import type { ServerRequest } from 'srvx'
import type { Target } from '../protocol/tus.ts'
import { isForwarded, originOf, targetOf, targetOfReference } from '../protocol/upload-url.ts'
import type { Exchange } from './exchange.ts'
import type { TidemarkServerOptions } from './server-options.ts'

export class UploadUrls {
  readonly #options: TidemarkServerOptions

  constructor(options: TidemarkServerOptions) {
    this.#options = options
  }

  targetOf(exchange: Exchange): Target {
    const target = targetOf(exchange.url, this.#options.path)
    const { getFileIdFromRequest } = this.#options
    if (!getFileIdFromRequest || target.is === 'collection') return target
    const id = getFileIdFromRequest(exchange.request, target.is === 'upload' ? target.id : undefined)
    return id === undefined ? { is: 'nothing' } : { is: 'upload', id }
  }

  /** Knows uploads by the URLs that clients name in headers. */
  idOf(url: string): string | undefined {
    const { getFileIdFromRequest, path } = this.#options
    const target = targetOfReference(url, path)
    const id = target.is === 'upload' ? target.id : undefined
    if (!getFileIdFromRequest || target.is === 'collection') return id
    const { pathname } = new URL(id === undefined ? '/' : url, `http://localhost${path.replace(/\/+$/, '')}/`)
    return getFileIdFromRequest(new Request(new URL(pathname, 'http://localhost')) as ServerRequest, id)
  }

  locationOf(id: string, exchange: Exchange): string {
    const {
      path: mountPath,
      generateUrl,
      relativeLocation,
      respectForwardedHeaders,
      trustsProxy,
    } = this.#options
    const base = mountPath === '/' ? '' : mountPath.replace(/\/+$/, '')
    const peer = exchange.peerAddress
    const origin = originOf(exchange.headers, {
      isEncrypted: exchange.isEncrypted,
      trustsForwarded:
        respectForwardedHeaders === true &&
        (trustsProxy === undefined || (peer !== undefined && trustsProxy(peer))),
    })
    if (generateUrl) {
      const url = generateUrl(exchange.request, {
        ...origin,
        host: origin.host ?? 'localhost',
        path: base,
        id,
      })
      validateHeaderValue('Location', url)
      return url
    }
    const path = `${base}/${encodeURIComponent(id)}`
    const isRelative =
      relativeLocation === 'behind-unknown-proxy' ? isForwarded(exchange.headers) : relativeLocation
    return isRelative || origin.host === undefined ? path : `${origin.proto}://${origin.host}${path}`
  }
}
