/**
 * Uppy, put together so that an upload outlives what happens to it: a lost connection, a restarted server, a reload,
 * a killed browser. It tries again for a day, and it never begins at byte 0 because of a passing condition.
 */
import Uppy, { type Body, type Meta, type UppyFile } from '@uppy/core'
import Dashboard from '@uppy/dashboard'
import GoldenRetriever from '@uppy/golden-retriever'
import Tus from '@uppy/tus'
import type { ConnectionBanner } from './connection.ts'
import { type DeleteUpload, deleteCancelled } from './deletion.ts'
import { formatSize } from './dom.ts'
import { InstantUploads } from './instant.ts'
import { isPassing, retryDelaysMs } from './patience.ts'
import type { PageSettings } from './settings.ts'
import type { Account, SignIn } from './sign-in.ts'
import { StallWatch } from './stall-watch.ts'
import { strings } from './strings.ts'
import type { UploadTable } from './upload-table.ts'
import type { WaitingList } from './waiting-list.ts'

type PageFile = UppyFile<Meta, Body>
type PageUppy = Uppy<Meta, Body>

const gib = 1024 ** 3
const dayMs = 24 * 60 * 60 * 1000

// The sizes are missing in the plugin's types; without them it keeps only files of up to 10 MiB.
const keptFiles = { name: 'tidemark-files', maxFileSize: gib, maxTotalSize: 2 * gib }

// A browser opens six connections to a server; what is left is for HEAD and POST of other files.
const uploadsAtOnce = 4

export interface UploaderParts {
  tabSlot: number
  banner: ConnectionBanner
  table: UploadTable
  waiting: WaitingList
  deleteUpload: DeleteUpload
  signIn: SignIn
  account: Account | null
}

export function startUploader(settings: PageSettings, parts: UploaderParts): PageUppy {
  const { account } = parts
  const maxFileSize = smaller(settings.maxSizeBytes, account?.maxBytes ?? null)
  const uppy: PageUppy = new Uppy({
    // What the browser keeps of an owner's files waits for that owner.
    id: account === null ? `tidemark-${parts.tabSlot}` : `tidemark-${parts.tabSlot}-${inHex(account.owner)}`,
    restrictions: { maxFileSize, allowedFileTypes: account?.types ?? null },
    onBeforeFileAdded: withoutEmptyMeta,
  })
  uppy.use(Dashboard, {
    target: '#dashboard',
    inline: true,
    width: '100%',
    height: '100%',
    theme: 'auto',
    fileManagerSelectionType: 'both',
    singleFileFullScreen: false,
    proudlyDisplayPoweredByUppy: false,
    note: noteOf(maxFileSize, account?.types ?? null),
    locale: { strings },
  })
  const stalls = watchForStalls(uppy, parts.banner)
  const instant = new InstantUploads(settings)
  instant.addTo(uppy)
  uppy.use(Tus, tusOptions(settings, parts, stalls, instant))
  uppy.use(GoldenRetriever, {
    expires: 7 * dayMs,
    indexedDB: keptFiles,
  })
  deleteCancelled(uppy, parts.deleteUpload)
  tellTable(uppy, parts.table, instant)
  goOnAfterRestore(uppy, parts.waiting)
  quietenWhenIdle(uppy, parts.banner)
  sayWhyItFailed(uppy)
  return uppy
}

function smaller(one: number | null, other: number | null): number | null {
  if (one === null || other === null) return one ?? other
  return Math.min(one, other)
}

function inHex(text: string): string {
  return [...new TextEncoder().encode(text)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}

function noteOf(maxFileSize: number | null, types: string[] | null): string | null {
  const size = maxFileSize === null ? [] : [`Up to ${formatSize(maxFileSize)} per file`]
  return [...size, ...(types === null ? [] : [`only ${types.join(', ')}`])].join('; ') || null
}

/** Uppy would send fields without a value as the words `null` and `undefined`. */
function withoutEmptyMeta(file: PageFile): PageFile {
  const meta = Object.fromEntries(
    Object.entries(file.meta).filter(([, value]) => value !== null && value !== undefined),
  )
  return { ...file, meta: meta as PageFile['meta'] }
}

/** An answer that means "not now", in a place where the client would take it for "never". */
class NotNow extends Error {}

/** The server does not take the token any more. */
class SignedOut extends Error {}

function tusOptions(
  { endpoint }: PageSettings,
  { banner, signIn, table }: Pick<UploaderParts, 'banner' | 'signIn' | 'table'>,
  stalls: StallWatch,
  instant: InstantUploads,
) {
  return {
    endpoint,
    limit: uploadsAtOnce,
    retryDelays: retryDelaysMs,
    storeFingerprintForResuming: true,
    removeFingerprintOnSuccess: true,
    allowedMetaFields: true,
    onBeforeRequest(request, file) {
      stalls.moved(file.id)
      instant.asking(request, file)
      for (const [name, value] of Object.entries(signIn.headers)) request.setHeader(name, value)
    },
    onAfterResponse(request, response) {
      const status = response.getStatus()
      if (!isPassing(status)) banner.answered(request.getURL())
      signIn.answered(status)
      instant.answered(request, response)
      // It would forget the upload, where people only have to sign in again.
      if (request.getMethod() === 'HEAD' && (status === 401 || status === 403)) throw new SignedOut()
      // tus-js-client forgets an upload whose HEAD fails, also when only a proxy in front is without its server.
      // An error thrown here counts as a lost connection: the same HEAD is tried again.
      if (request.getMethod() === 'HEAD' && (status >= 500 || status === 429)) throw new NotNow()
    },
    onShouldRetry(error, retryAttempt, _options, decide) {
      if (instant.isNothingToSend(error.causingError)) return true
      const status = error.originalResponse?.getStatus() ?? 0
      // Full is not "not now": people must hear of it, and can press Retry once there is room.
      if (error.causingError instanceof SignedOut) return false
      const willRetry = status !== 507 && decide(error)
      const isBusy = error.causingError instanceof NotNow || status !== 0
      // A first 409 or 423 is the usual way of an upload that changes hands, and over in a moment.
      const isQuiet = status > 0 && status < 500 && retryAttempt === 0
      const url = error.originalRequest.getURL()
      // No room for another upload, or for more of this one: only the server knows until when.
      const isWaiting = status === 429 || status === 423
      if (willRetry && isWaiting) table.waits(url)
      if (willRetry && isWaiting && !(isQuiet && status === 423))
        banner.failed(url, 'waiting', sentenceOf(error.originalResponse?.getBody()))
      else if (willRetry && !isQuiet) banner.failed(url, isBusy ? 'busy' : 'unreachable')
      return willRetry
    },
  } satisfies ConstructorParameters<typeof Tus<Meta, Body>>[1]
}

function tellTable(uppy: PageUppy, table: UploadTable, instant: InstantUploads): void {
  uppy.on('upload-progress', (file, { bytesUploaded }) => {
    // The event's own file is older than the URL.
    const known = file && uppy.getFiles().find(({ id }) => id === file.id)
    const url = known && uploadUrlOf(known)
    if (known && url) table.sent({ name: nameOf(known), sizeBytes: known.size ?? 0, url }, bytesUploaded || 0)
  })
  uppy.on('upload-success', (file, response) => {
    if (file === undefined || response.uploadURL === undefined) return
    const known = { name: nameOf(file), sizeBytes: file.size ?? 0, url: response.uploadURL }
    table.finished(known, instant.wasThere(file.id))
  })
}

/**
 * After a reload or a killed browser: what the browser has kept goes on by itself, unless people had paused it. What
 * it has not kept is handed to the list that asks for the file, and goes on as soon as the file is chosen.
 */
function goOnAfterRestore(uppy: PageUppy, waiting: WaitingList): void {
  uppy.on('restored', () => {
    const lost = uppy.getFiles().filter((file) => file.isGhost)
    waiting.add(
      lost.map((file) => ({
        id: idAcrossTabs(uppy, file),
        name: nameOf(file),
        sizeBytes: file.size ?? 0,
        uploadUrl: uploadUrlOf(file),
      })),
    )
    uppy.removeFiles(lost.map((file) => file.id))

    const { currentUploads } = uppy.getState()
    const isWaitingForPeople = uppy.getFiles().some((file) => file.isPaused)
    if (Object.keys(currentUploads).length === 0) uppy.setState({ recoveredState: null })
    else if (!isWaitingForPeople) queueMicrotask(() => uppy.emit('restore-confirmed'))
  })

  uppy.on('file-added', (file) => {
    const upload = waiting.take(idAcrossTabs(uppy, file))
    if (upload === undefined) return
    if (upload.uploadUrl !== null) uppy.setFileState(file.id, { tus: { uploadUrl: upload.uploadUrl } })
    queueMicrotask(() => void uppy.retryUpload(file.id))
  })
}

/** Uppy's file id without the id of the Uppy that it begins with: the same file, whichever tab it is chosen in. */
function idAcrossTabs(uppy: PageUppy, file: PageFile): string {
  return file.id.slice(uppy.getID().length)
}

function uploadUrlOf(file: PageFile): string | null {
  return file.tus?.uploadUrl ?? null
}

function nameOf(file: PageFile): string {
  return file.name ?? 'unnamed'
}

function quietenWhenIdle(uppy: PageUppy, banner: ConnectionBanner): void {
  const quieten = () => {
    const isTrying = uppy
      .getFiles()
      .some(
        ({ progress, isPaused, error }) =>
          progress.uploadStarted && !progress.uploadComplete && !isPaused && !error,
      )
    if (!isTrying) banner.idle()
  }
  // After the event: its other listeners have not yet changed the state.
  const soon = () => queueMicrotask(quieten)
  for (const event of ['upload-pause', 'pause-all', 'cancel-all', 'upload-error', 'complete'] as const) {
    uppy.on(event, soon)
  }
  uppy.on('file-removed', soon)
  uppy.on('upload-success', soon)
}

function watchForStalls(uppy: PageUppy, banner: ConnectionBanner): StallWatch {
  const stalls = new StallWatch((fileId) => {
    const file = uppy.getFiles().find(({ id }) => id === fileId)
    if (file === undefined || file.isPaused || file.error || file.progress.uploadComplete) {
      stalls.ended(fileId)
      return
    }
    banner.failed(uploadUrlOf(file) ?? fileId, 'unreachable')
    uppy.pauseResume(fileId)
    uppy.pauseResume(fileId)
  })
  uppy.on('upload-progress', (file, { bytesUploaded, bytesTotal }) => {
    if (file === undefined) return
    // All is sent: now the server may take its time to check and sync it.
    if (bytesUploaded === bytesTotal) stalls.ended(file.id)
    else stalls.moved(file.id)
  })
  stalls.start()
  return stalls
}

/** Uppy only says that it failed; the server's answer says why: a code for programs, and a sentence for people. */
function sayWhyItFailed(uppy: PageUppy): void {
  uppy.on('upload-error', (file, _error, response) => {
    const reason = sentenceOf(
      response?.body?.xhr instanceof XMLHttpRequest ? response.body.xhr.responseText : '',
    )
    if (file !== undefined && reason !== '') uppy.info(`${nameOf(file)}: ${reason}`, 'error', 15_000)
  })
}

/** What the server says, where it is for people: without its code, and not the page that a proxy put in its place. */
function sentenceOf(body = ''): string {
  const text = body.trim().replace(/^[a-z]+(?:-[a-z]+)*: /, '')
  return text.length < 300 && !text.startsWith('<') ? text : ''
}
