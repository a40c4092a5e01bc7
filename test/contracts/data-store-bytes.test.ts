// A plain @tus store under the contracts of Tidemark's own: what the adapter promises, and in the names of the tests what
// it does not.

import { FileStore as TusFileStore } from '@tus/file-store'
import { DataStoreBytes, notPromised } from '../../stores/tus/data-store-bytes.ts'
import { filesIn } from '../stores/file/support.ts'
import { makeFolder } from '../support/folder.ts'
import { describeAppender } from './appender-contract.ts'
import { type ByteStoreUnderTest, describeByteStore } from './byte-store-contract.ts'

const name = "DataStoreBytes over @tus/file-store's FileStore"
const notDone = () => Promise.reject(new Error('only stores that promise this are asked for it'))

async function start(): Promise<ByteStoreUnderTest> {
  const folder = await makeFolder()
  const onFolder = () => new DataStoreBytes(new TusFileStore({ directory: folder.path }))
  return {
    store: onFolder(),
    other: onFolder(),
    cutOffCreations: notDone,
    cutOffRemovals: notDone,
    remains: () => filesIn(folder.path),
    stop: folder.remove,
  }
}

describeByteStore(name, start, notPromised)
describeAppender(name, start, notPromised)
