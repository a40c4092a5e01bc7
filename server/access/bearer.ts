/**
 * Where a token is looked for: one `Authorization: Bearer` header, and nowhere else. URLs are kept in histories, logs and
 * referrers, so a token that stands in one is refused even when it is good.
 */
import { type AccessRequest, unauthorized } from './gate.ts'

/** Longer than any token that is made here, and than the claims that anybody needs. */
const maxTokenLength = 8192

const queryNames = new Set([
  'access_token',
  'api_key',
  'apikey',
  'auth',
  'auth_token',
  'authorization',
  'bearer',
  'bearer_token',
  'id_token',
  'jwt',
  'token',
])

/** The token of a request, or the 401 that says what is wrong. */
export function bearerOf({ url, authorization }: AccessRequest): string {
  if (hasTokenInQuery(url))
    throw unauthorized(
      'invalid_request',
      'a token must not stand in a URL, where logs and histories keep it; send it as "Authorization: Bearer", and make a new one',
    )
  const [header, ...others] = authorization
  if (header === undefined) throw unauthorized()
  if (others.length > 0) throw unauthorized('invalid_request', 'send exactly one Authorization header')
  if (header.length > maxTokenLength) throw unauthorized('invalid_token', 'this token is too long to be one')
  // RFC 9110, 11.4: the name of the scheme is in any case. RFC 6750, 2.1: what a token may consist of.
  const [, scheme, token] = /^([A-Za-z0-9-]+) +([A-Za-z0-9._~+/-]+=*) *$/.exec(header) ?? []
  if (scheme?.toLowerCase() !== 'bearer' || token === undefined)
    throw unauthorized('invalid_request', 'the Authorization header must be "Bearer" and one token')
  return token
}

/** Also where the name is percent-encoded, or the token is one of ours under another name. */
function hasTokenInQuery(url: string): boolean {
  const at = url.indexOf('?')
  if (at < 0) return false
  for (const [name, value] of new URLSearchParams(url.slice(at + 1)))
    if (queryNames.has(name.toLowerCase()) || /^tm_[0-9a-z]+_/.test(value) || value.startsWith('eyJ'))
      return true
  return false
}

/** All `Authorization` headers of a request, from names and values as they came. */
export function authorizationOf(
  rawHeaders: readonly string[],
  headers: { readonly authorization?: string | undefined },
): string[] {
  if (headers.authorization === undefined) return []
  const values: string[] = []
  for (let i = 0; i < rawHeaders.length; i += 2)
    if (rawHeaders[i]!.toLowerCase() === 'authorization') values.push(rawHeaders[i + 1]!)
  return values.length > 0 ? values : [headers.authorization]
}
