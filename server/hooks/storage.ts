/** Where an upload lies, in the words of tusd. */
import path from 'node:path'
import type { ByteStore, UploadRecord } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import type { HookStorage } from './payload.ts'

/** In our own folder, who removes what `InfoPath` names has removed the upload, as with tusd. */
export function storageOf(bytes: ByteStore): (record: UploadRecord) => HookStorage {
  if (!(bytes instanceof FileBytes))
    return ({ storage }) => ({ Type: storage?.type ?? '', Path: storage?.path ?? '', InfoPath: '' })
  const { layout } = bytes
  return ({ head: { id, storagePath }, mark: { state, generation } }) => ({
    Type: 'filestore',
    Path:
      storagePath !== undefined && state === 'finished'
        ? path.join(layout.directory, storagePath)
        : layout.data(id, generation),
    InfoPath: layout.mark(id, 0),
  })
}
