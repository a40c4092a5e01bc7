/** What `pre-access` is asked: which upload a request is about, and what it wants of it. */
import type { ByteStore } from '../../stores/contracts.ts'
import type { Command } from '../protocol/messages.ts'
import { type Asker, isShownTo } from '../uploads/upload-request.ts'
import { plannedUploadOf, unknownUpload } from './payload.ts'
import type { RequestHooks } from './request-hooks.ts'

export async function askForAccess(
  command: Command,
  hooks: RequestHooks,
  { bytes, asker }: { readonly bytes: ByteStore; readonly asker: Asker },
): Promise<void> {
  if (command.do === 'options') return
  if (command.do === 'create' || command.do === 'concat') {
    const { metadata } = command
    const head = command.do === 'create' ? { concat: command.partial } : { parts: command.parts }
    const length = command.do === 'create' ? command.length : undefined
    const planned = { ...head, metadata } as Parameters<typeof plannedUploadOf>[0]
    return hooks.beforeAccess('create', plannedUploadOf(planned, length))
  }
  const record = await bytes.look(command.id)
  // What is nobody's business but its owner's is as unknown as what never was.
  const isKnown = record !== undefined && isShownTo(asker, record.head)
  const action = command.do === 'offset' ? 'ask' : command.do
  return hooks.beforeAccess(action, isKnown ? record : unknownUpload(command.id))
}
