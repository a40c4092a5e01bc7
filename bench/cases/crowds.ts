/**
 * Many uploads that are open at once and slow: what they cost in memory, whether one of them fails, and how long others
 * wait meanwhile. The questions come at a steady pace and are counted from when they were due, so that a server which
 * stands still is not asked less often.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Client, type Upload } from '../load/client.ts'
import { openFilesLimitOf, openFilesOf } from '../usage.ts'
import { type Case, type Meter, newContent, type Stage, verifySome, withClients } from './case.ts'

const beatsPerSecond = 10
const questionsPerSecond = 100
const watched = 16
const opening = 50
/** Kept back from the limit of open files for what a server needs beside uploads. */
const spareFiles = 400

const slow: Case = {
  name: 'slow',
  title: 'Slow uploads at once, 1 KiB a second each, while others ask for offsets',
  kind: 'crowd',
  needs: ['tus'],
  run: (stage) => crowd(stage, stage.scale.slowUploads, 1024),
}

const many: Case = {
  name: 'many',
  title: 'Very many slow uploads at once, 8 bytes a second each, while others ask for offsets',
  kind: 'crowd',
  needs: ['tus'],
  run: (stage) => crowd(stage, stage.scale.manyUploads, 8),
}

/** The first client stands still with its connection open, as after a change of network; how soon can it go on by another? */
const takeOver: Case = {
  name: 'take-over',
  title: 'Uploads whose PATCH stands still: HEAD and PATCH by another connection, until all is there',
  kind: 'waits',
  needs: ['one-writer'],
  async run(stage) {
    const length = 64 * 1024
    await withClients(stage, 2, async (clients) => {
      const taken: Upload[] = []
      await stage.measure(async (meter) => {
        const until = performance.now() + stage.scale.seconds * 1000
        const goOn = async (client: Client) => {
          do {
            const upload = await client.create(newContent(), length)
            const first = new Client(stage.target)
            const stalled = await first.beginAppend(upload)
            stalled.answer.catch(() => undefined)
            stalled.send(upload.content.slice(0, length / 2))
            // Nobody says when a server has begun to write.
            await sleep(100)
            await meter.time(length, () => client.resume(upload))
            first.close()
            taken.push(upload)
          } while (performance.now() < until)
        }
        await Promise.all(clients.map(goOn))
      })
      await verifySome(stage, taken)
    })
  },
}

export const crowdCases: readonly Case[] = [slow, many, takeOver]

type Slow = Awaited<ReturnType<Client['beginAppend']>>

async function crowd(stage: Stage, wanted: number, bytesPerSecond: number): Promise<void> {
  const { seconds } = stage.scale
  const content = newContent()
  const piece = content.slice(0, bytesPerSecond)
  // Never reached: they stay open.
  const length = bytesPerSecond * 3600
  await withClients(stage, 1, async ([asking]) => {
    const others: Upload[] = []
    for (let i = 0; i < watched; i++) {
      others.push(await asking!.create(content, length))
      await asking!.append(others[i]!, 0, bytesPerSecond)
    }
    await stage.measure(async (meter) => {
      const open = await openSlowUploads(stage, meter, { wanted, length })
      meter.uploads = open.length
      let isOver = false
      for (const { answer } of open) {
        // None of them has sent all: whatever ends or answers one before we do is a failure.
        const onEnd = () => void (isOver || meter.failures++)
        answer.then(onEnd, onEnd)
      }
      const until = performance.now() + seconds * 1000
      await Promise.all([sendSlowly(open, piece, until), askSteadily(asking!, others, meter, until)])
      isOver = true
      for (const upload of open) upload.close()
    })
  })
}

interface OpenUpload extends Slow {
  close(): void
}

async function openSlowUploads(
  stage: Stage,
  meter: Meter,
  { wanted, length }: { wanted: number; length: number },
): Promise<OpenUpload[]> {
  const content = newContent()
  const open: OpenUpload[] = []
  await withClients(stage, opening, async (creating) => {
    while (open.length < wanted && hasRoom(stage)) {
      const now = creating.slice(0, wanted - open.length)
      await Promise.all(
        now.map(async (client) => {
          const upload = await client.create(content, length)
          const slow = new Client(stage.target)
          open.push({ ...(await slow.beginAppend(upload)), close: () => slow.close() })
        }),
      )
    }
    await sleep(200) // Until the server has opened what it opens for the last of them.
  })
  if (open.length < wanted)
    meter.notes.push(`${open.length} of ${wanted}: the limit of open files allows no more`)
  return open
}

/** Whether all processes may open more files: some keep as many for each upload, others close what is not used. */
function hasRoom(stage: Stage): boolean {
  if (openFilesOf('self') > openFilesLimitOf('self') - spareFiles) return false
  return stage.serverPids().every((pid) => openFilesOf(pid) <= openFilesLimitOf(pid) - spareFiles)
}

async function sendSlowly(open: readonly OpenUpload[], piece: Buffer, until: number): Promise<void> {
  for (let beat = 0; performance.now() < until; beat++) {
    const startedAt = performance.now()
    for (let i = beat % beatsPerSecond; i < open.length; i += beatsPerSecond) open[i]!.send(piece)
    await sleep(Math.max(0, startedAt + 1000 / beatsPerSecond - performance.now()))
  }
}

async function askSteadily(
  client: Client,
  uploads: readonly Upload[],
  meter: Meter,
  until: number,
): Promise<void> {
  let dueAt = performance.now()
  for (let i = 0; dueAt < until; i++) {
    await sleep(Math.max(0, dueAt - performance.now()))
    await client.offset(uploads[i % uploads.length]!)
    meter.latenciesMs.push(performance.now() - dueAt)
    dueAt += 1000 / questionsPerSecond
  }
}
