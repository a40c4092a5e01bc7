/** The page at `/` of a Tidemark server: the parts are made here, and put together. */
import '@uppy/core/css/style.min.css'
import '@uppy/dashboard/css/style.min.css'
import './style.css'
import './uppy.css'
import { ConnectionBanner } from './connection.ts'
import { uploadDeleter } from './deletion.ts'
import { readSettings } from './settings.ts'
import { takeTabSlot } from './tab-slot.ts'
import { UploadFeed } from './upload-feed.ts'
import { UploadTable } from './upload-table.ts'
import { startUploader } from './uploader.ts'
import { WaitingList } from './waiting-list.ts'

const settings = readSettings()
const table = new UploadTable(settings, new UploadFeed(settings))
table.start()

const tabSlot = await takeTabSlot()
const deleteOnServer = uploadDeleter(settings)
const deleteUpload = (url: string) => {
  table.forget(url)
  deleteOnServer(url)
}
const waiting = new WaitingList((files) => {
  for (const file of files) addFile(file)
}, deleteUpload)
const banner = new ConnectionBanner()
const uppy = startUploader(settings, { tabSlot, banner, table, waiting, deleteUpload })
waiting.start()

function addFile(file: File): void {
  try {
    uppy.addFile({ name: file.name, type: file.type, data: file, source: 'Dashboard' })
  } catch {
    // Too large, or chosen twice: Uppy has told people already.
  }
}
