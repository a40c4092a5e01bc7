/** Which kinds of files are taken from everybody, by what clients say of them. Nobody has seen the bytes then. */
import { isTypeAllowed } from '../access/identity.ts'
import { Refusal } from '../errors.ts'
import { declaredType } from '../protocol/metadata.ts'

/** Refuses metadata that names no type that is allowed, or none at all. Undefined where any is. */
export function typeRule(
  allowed: readonly string[] | undefined,
): ((metadata: string | undefined) => Refusal | undefined) | undefined {
  if (allowed === undefined || allowed.length === 0) return undefined
  const wanted = `only these types are accepted here: ${allowed.join(', ')}`
  return (metadata) => {
    const declared = declaredType(metadata)
    if (declared !== undefined && isTypeAllowed(declared, allowed)) return undefined
    const detail = declared === undefined ? `${wanted}; say it as filetype in Upload-Metadata` : wanted
    return new Refusal('type-refused', { detail })
  }
}
