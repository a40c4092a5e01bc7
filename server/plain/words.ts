/** Pages for people whose browser sends a form without any script, and what they are told. */

import { escapeHtml } from '../host/html.ts'
import type { Answer, RequestHeaders } from '../protocol/tus.ts'

export interface FileWords {
  readonly field: string
  readonly name: string
  readonly id: string
  readonly url: string
  readonly size: number
  readonly sha256: string
  readonly type?: string
}

/** Nothing but the form itself; names of files stand in these pages. */
const pageHeaders = {
  'Content-Type': 'text/html; charset=utf-8',
  'Content-Security-Policy':
    "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
  'X-Content-Type-Options': 'nosniff',
  'Referrer-Policy': 'same-origin',
  'Cache-Control': 'no-store',
}

/** Browsers name HTML itself; tools take anything. */
export function wantsPage({ accept }: RequestHeaders): boolean {
  return typeof accept === 'string' && /(^|,)\s*text\/html\b/i.test(accept)
}

/** A form that needs no script. */
export function formPage(action: string): Answer {
  return page(
    200,
    'Upload files',
    `<form method="post" enctype="multipart/form-data" action="${escapeHtml(action)}">
<p><label>Files <input type="file" name="upload" multiple required></label></p>
<p><button>Upload</button></p>
</form>
<p>When the connection breaks, choose the same files again: what came before is kept, and not lost.</p>`,
  )
}

/** What became of a form. */
export function pageOf(files: readonly FileWords[], problem?: string): Answer {
  const items = files.map(
    ({ name, url, size, sha256 }) =>
      `<li><a href="${escapeHtml(url)}">${escapeHtml(name)}</a>, ${size} bytes<br><code>sha256 ${sha256}</code></li>`,
  )
  const list = items.length > 0 ? `<ul>\n${items.join('\n')}\n</ul>` : ''
  const said = problem === undefined ? '' : `<p role="alert">${escapeHtml(problem)}</p>\n`
  const title = problem === undefined ? 'Uploaded' : 'Not all was uploaded'
  return page(201, title, `${said}${list}`)
}

function page(status: number, title: string, content: string): Answer {
  const body = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${title}</title>
<h1>${title}</h1>
${content}
</html>
`
  return { status, headers: { ...pageHeaders }, body }
}
