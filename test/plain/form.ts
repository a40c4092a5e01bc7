// Forms as bytes, written by hand, so that a test can cut them, or make them wrong.

import { createHash } from 'node:crypto'

export const boundary = 'XxTideXx'
export const formType = { 'Content-Type': `multipart/form-data; boundary=${boundary}` }

/** The beginning of a part: a file when it has a name. */
export function partHead(field: string, name?: string, more = ''): string {
  const filename = name === undefined ? '' : `; filename="${name}"`
  return `--${boundary}\r\nContent-Disposition: form-data; name="${field}"${filename}\r\n${more}\r\n`
}

/** A part: a file when it has a name. */
export function part(field: string, content: string | Uint8Array, name?: string, more = ''): Buffer {
  return Buffer.concat([Buffer.from(partHead(field, name, more)), Buffer.from(content), Buffer.from('\r\n')])
}

export function form(...parts: Buffer[]): Buffer {
  return Buffer.concat([...parts, Buffer.from(`--${boundary}--\r\n`)])
}

export const hashOf = (content: string | Uint8Array) => createHash('sha256').update(content).digest('hex')
