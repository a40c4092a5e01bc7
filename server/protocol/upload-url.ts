/** The URLs of uploads: which upload a request points at, and the Location that a creation is given. */
import type { RequestHeaders, Target } from './tus.ts'

/** What a request URL points at, below the mount path. The query is ignored; percent-encoding is decoded once. */
export function targetOf(url: string, mountPath: string): Target {
  const path = pathOf(url)
  const base = mountPath === '/' ? '' : mountPath.replace(/\/+$/, '')
  if (path === base || path === `${base}/`) return { is: 'collection' }
  if (!path.startsWith(`${base}/`)) return { is: 'nothing' }
  const segment = path.slice(base.length + 1)
  if (segment.includes('/')) return { is: 'nothing' }
  try {
    return { is: 'upload', id: decodeURIComponent(segment) }
  } catch {
    return { is: 'nothing' }
  }
}

/** What a URL that a client wrote into a header points at: absolute, or relative to the creation URL. Whose host it names is not looked at: behind a proxy a server may not know its own. */
export function targetOfReference(reference: string, mountPath: string): Target {
  const base = `http://localhost${mountPath.replace(/\/+$/, '')}/`
  return URL.canParse(reference, base)
    ? targetOf(new URL(reference, base).href, mountPath)
    : { is: 'nothing' }
}

/** The path of a request target, in origin form (`/a?b`) or absolute form (`http://host/a?b`). */
export function pathOf(url: string): string {
  const withoutOrigin = url.startsWith('/') ? url : url.replace(/^[a-z][a-z0-9+.-]*:\/\/[^/?#]*/i, '')
  return withoutOrigin.replace(/[?#].*$/s, '') || '/'
}

/**
 * Scheme and host as the client sees them: `Forwarded` first, then `X-Forwarded-*`, lists by their first element.
 * Without a host where the client named none, or nothing that can stand in a URL.
 */
export function originOf(
  headers: RequestHeaders,
  { isEncrypted, trustsForwarded }: { isEncrypted: boolean; trustsForwarded: boolean },
): { proto: 'http' | 'https'; host: string | undefined } {
  const forwarded = trustsForwarded ? parseForwarded(first(headers.forwarded)) : {}
  const proto = (
    forwarded.proto ?? (trustsForwarded ? first(headers['x-forwarded-proto']) : undefined)
  )?.toLowerCase()
  const host = forwarded.host ?? (trustsForwarded ? first(headers['x-forwarded-host']) : undefined)
  const own = single(headers.host)
  return {
    proto: proto === 'http' || proto === 'https' ? proto : isEncrypted ? 'https' : 'http',
    host: isHost(host) ? host : isHost(own) ? own : undefined,
  }
}

/** Whether a proxy says that it handed this request on. */
export function isForwarded(headers: RequestHeaders): boolean {
  const names = ['forwarded', 'via', 'x-forwarded-for', 'x-forwarded-host', 'x-forwarded-proto', 'x-real-ip']
  return names.some((name) => headers[name] !== undefined)
}

function parseForwarded(element: string | undefined): { proto?: string; host?: string } {
  const found: { proto?: string; host?: string } = {}
  for (const pair of element?.split(';') ?? []) {
    const match = /^\s*(proto|host)\s*=\s*"?([^"]*)"?\s*$/i.exec(pair)
    if (match) found[match[1]!.toLowerCase() as 'proto' | 'host'] = match[2]!
  }
  return found
}

/** A host name or address with an optional port, and nothing that could end the URL's authority. */
function isHost(host: string | undefined): host is string {
  return host !== undefined && /^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?$/.test(host)
}

function first(header: string | string[] | undefined): string | undefined {
  return single(header)?.split(',')[0]?.trim()
}

function single(header: string | string[] | undefined): string | undefined {
  return Array.isArray(header) ? header.join(',') : header
}
