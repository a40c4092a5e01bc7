/** The bytes of an upload as a stream that holds their file, so that they stay what they were while it is removed. */
import { Readable } from 'node:stream'
import { StoreError, type UploadRecord } from '../contracts.ts'
import type { FileLayout } from './file-layout.ts'
import { asStoreError, type FileSystem, type OpenFile } from './file-system.ts'

export async function readBytes(
  fileSystem: FileSystem,
  layout: FileLayout,
  { head, mark }: UploadRecord,
  start: number,
  end: number,
): Promise<Readable> {
  if (end <= start) return Readable.from([])
  let handle: OpenFile | undefined
  try {
    handle = await fileSystem.open(layout.data(head.id, mark.generation), 'r')
    const { size } = await handle.stat()
    if (size < end) throw new StoreError('damaged', `only ${size} bytes of an upload are stored`)
    return handle.createReadStream({ start, end: end - 1, highWaterMark: 256 * 1024 })
  } catch (error) {
    await handle?.close()
    throw asStoreError(error, 'read the bytes of an upload')
  }
}
