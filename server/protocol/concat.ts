/**
 * `Upload-Concat`: says that an upload is a part of a later one, or which parts make one (tus 1.0.0, Concatenation).
 * The header is kept and given back exactly as it was sent.
 */
import { Refusal } from '../errors.ts'

/** As many URLs as fit into the headers that are accepted. */
const mostParts = 1000

export type Concat = { readonly is: 'partial' } | { readonly is: 'final'; readonly parts: readonly string[] }

/** Reads the header, or throws the Refusal that answers it. `idOfUrl` knows the uploads of this server by their URLs. */
export function parseConcat(header: string, idOfUrl: (url: string) => string | undefined): Concat {
  if (header === 'partial') return { is: 'partial' }
  if (!header.startsWith('final;')) throw new Refusal('concat-invalid')
  const urls = header.slice('final;'.length).split(' ').filter(Boolean)
  if (urls.length === 0) throw new Refusal('concat-invalid')
  if (urls.length > mostParts) throw new Refusal('concat-too-many')
  const parts = urls.map((url, index) => {
    const id = idOfUrl(url)
    if (id === undefined)
      throw new Refusal('part-unknown', {
        detail: `part ${index + 1} of this final upload is no upload of this server`,
      })
    return id
  })
  return { is: 'final', parts }
}
