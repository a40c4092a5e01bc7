import { expect, it } from 'vitest'
import type { UploadEngine } from '../../server/uploads/engine.ts'
import type { Asker, UploadRequest } from '../../server/uploads/upload-request.ts'
import { append, request, startEngine } from '../support/engine.ts'
import { temporaryFolder } from '../support/folder.ts'

const ann: Asker = { owner: 'ann', seesAll: false }
const bob: Asker = { owner: 'bob', seesAll: false }
const admin: Asker = { owner: 'root', seesAll: true }
const notFound = { is: 'refused', refusal: { code: 'not-found' } }

const as = (asker: Asker, body?: string, changes: Partial<UploadRequest> = {}) =>
  request(body, { asker, ...changes })

async function create(engine: UploadEngine, asker: Asker, text: string, partial?: 'partial') {
  const bytes = { isBytes: true, hasBody: true, contentLength: text.length, checksum: undefined }
  const command = { do: 'create', length: text.length, metadata: undefined, partial, ...bytes } as const
  const outcome = await engine.create(command, as(asker, text))
  if (outcome.is !== 'created') throw new Error(`it was not created but ${outcome.is}`)
  return outcome.record.head.id
}

it('shows an upload to its owner and to who sees all, and to nobody else', async () => {
  const { engine } = await startEngine(await temporaryFolder())
  const id = await create(engine, ann, 'mine')
  for (const asker of [ann, admin]) {
    expect(await engine.offset(id, as(asker))).toMatchObject({ is: 'offset' })
    expect(await engine.read(id, as(asker))).toMatchObject({ is: 'readable' })
  }
  for (const asker of [bob, { seesAll: false }]) {
    expect(await engine.offset(id, as(asker))).toMatchObject(notFound)
    expect(await engine.read(id, as(asker))).toMatchObject(notFound)
    expect(await append(engine, id, 4, '', as(asker, ''))).toMatchObject(notFound)
    expect(await engine.terminate(id, as(asker))).toMatchObject(notFound)
  }
  expect(await engine.offset(id, as(ann))).toMatchObject({ record: { head: { owner: 'ann' } } })
})

it('keeps what nobody owns from those who have to say who they are', async () => {
  const { engine } = await startEngine(await temporaryFolder())
  const id = await create(engine, { seesAll: true }, 'anybody')
  expect(await engine.offset(id, as({ seesAll: false }))).toMatchObject(notFound)
  expect(await engine.offset(id, as(ann))).toMatchObject(notFound)
})

it('makes no final of the parts of somebody else, and gives nobody the final of another', async () => {
  const { engine } = await startEngine(await temporaryFolder())
  const part = await create(engine, ann, 'part', 'partial')
  const command = { do: 'concat', asSent: 'final;/p', parts: [part], metadata: undefined } as const
  expect(await engine.concat(command, as(bob))).toMatchObject({ refusal: { code: 'part-unknown' } })
  const made = await engine.concat(command, as(ann))
  const repeated = await engine.concat(command, as(ann))
  const other = await engine.concat(command, as(admin))
  const idOf = (outcome: typeof made) => (outcome.is === 'created' ? outcome.record.head.id : outcome.is)
  expect(idOf(repeated)).toBe(idOf(made))
  expect(idOf(other)).not.toBe(idOf(made))
})

it('asks once more before it finishes, and keeps the upload open when the answer is no', async () => {
  const { engine } = await startEngine(await temporaryFolder())
  const reauthorize = async () => Promise.reject(new Error('signed out'))
  const command = { do: 'create', length: 4, metadata: undefined, isBytes: false, hasBody: false } as const
  const outcome = await engine.create({ ...command, contentLength: 0, checksum: undefined }, as(ann))
  if (outcome.is !== 'created') throw new Error(outcome.is)
  const open = outcome.record.head.id
  await expect(append(engine, open, 0, 'four', as(ann, 'four', { reauthorize }))).rejects.toThrow(
    'signed out',
  )
  // At its last byte it would be finished.
  const kept = { state: 'open', offset: 3 }
  expect(await engine.offset(open, as(ann))).toMatchObject({ record: { mark: kept } })
  await append(engine, open, 3, 'r', as(ann, 'r'))
  expect(await engine.offset(open, as(ann))).toMatchObject({ record: { mark: { state: 'finished' } } })
})

it('makes an upload with the head that is wanted before the creation', async () => {
  const { engine } = await startEngine(await temporaryFolder())
  const command = { do: 'create', length: 4, metadata: 'a YQ==', isBytes: false, hasBody: false } as const
  const wanted = as(ann, undefined, {
    beforeCreate: async (head) => ({ ...head, id: 'chosen', metadata: 'b Yg==' }),
  })
  const outcome = await engine.create({ ...command, contentLength: 0, checksum: undefined }, wanted)
  expect(outcome).toMatchObject({ is: 'created', record: { head: { id: 'chosen', metadata: 'b Yg==' } } })
  expect(await engine.offset('chosen', as(ann))).toMatchObject({ record: { head: { owner: 'ann' } } })
})

it('lets an upload live shorter than others when its head says so, and never longer', async () => {
  const { engine } = await startEngine(await temporaryFolder(), {
    settings: { expiry: { afterMs: 60_000, mode: 'absolute' } },
  })
  const lived = async (expireAfterMs: number) => {
    const command = { do: 'create', length: 4, metadata: undefined, isBytes: false, hasBody: false } as const
    const beforeCreate: UploadRequest['beforeCreate'] = async (head) => ({ ...head, expireAfterMs })
    const outcome = await engine.create(
      { ...command, contentLength: 0, checksum: undefined },
      as(ann, undefined, { beforeCreate }),
    )
    if (outcome.is !== 'created') throw new Error(outcome.is)
    return outcome.expiresAt! - outcome.record.head.createdAt
  }
  expect(await lived(1_000)).toBe(1_000)
  expect(await lived(90_000)).toBe(60_000)
})
