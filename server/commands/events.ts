/**
 * `tidemark events`: events that could not be delivered. They lie as files in the folder of the uploads, where running
 * servers put them and find what is to be sent again; so this works beside them, and while there are none.
 */
import { existsSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { Note } from '../../stores/contracts.ts'
import { FileBytes } from '../../stores/file/file-bytes.ts'
import type { FileOutbox } from '../../stores/file/file-outbox.ts'
import { type Config, loadConfig } from '../config.ts'
import type { Terminal } from './index.ts'

const usage = `usage: tidemark events list                what could not be delivered, oldest first
       tidemark events show ID             all that is known of one, as JSON
       tidemark events retry ID|--all      send it again; it then has the whole time once more
       tidemark events drop ID             forget it

Settings follow, such as --upload-dir; an ID may be cut short.
`

interface Files {
  readonly outbox: FileOutbox
  readonly undelivered: FileOutbox
}

export async function run(argv: readonly string[], terminal: Terminal): Promise<number> {
  const end = argv.findIndex((arg) => arg.startsWith('-') && !/^--?(all|help|h)$/.test(arg))
  const own = end < 0 ? argv : argv.slice(0, end)
  const { values, positionals } = parseArgs({
    args: own.map((arg) => (/^-[a-z]{2}/.test(arg) ? `-${arg}` : arg)),
    options: { all: { type: 'boolean' }, help: { type: 'boolean', short: 'h' } },
    allowPositionals: true,
  })
  if (values.help) {
    terminal.out(usage)
    return 0
  }
  const config = loadConfig(end < 0 ? [] : argv.slice(end), terminal.env)
  if (!existsSync(config.uploadDir)) {
    terminal.err(`there is no folder "${config.uploadDir}"; --upload-dir says which one the server uses\n`)
    return 1
  }
  const [action, ...ids] = positionals
  const files = filesOf(config)
  if (action === 'list' && ids.length === 0 && !values.all) return list(files, terminal)
  if (action === 'retry' && values.all && ids.length === 0) return retryAll(files, terminal)
  const [id] = ids
  if (id === undefined || ids.length > 1 || values.all || !isAction(action)) {
    terminal.err(usage)
    return 2
  }
  const note = await find(files.undelivered, id, terminal)
  if (note === undefined) return 1
  await actions[action](note, files, terminal)
  return 0
}

function filesOf({ uploadDir, durability }: Config): Files {
  const { outbox } = new FileBytes({ directory: uploadDir, durability })
  return { outbox, undelivered: outbox.undelivered }
}

const actions = {
  show: async (note: Note, _: Files, { out }: Terminal) => out(`${JSON.stringify(note, undefined, 2)}\n`),
  retry: async (note: Note, files: Files, { out }: Terminal) => {
    await retry(note, files)
    out(`${note.event.id} is sent again within seconds by any running server\n`)
  },
  drop: async ({ event }: Note, { undelivered }: Files, { out }: Terminal) => {
    await undelivered.remove(event.id)
    out(`${event.id} is forgotten\n`)
  },
}

function isAction(word: string | undefined): word is keyof typeof actions {
  return word !== undefined && Object.hasOwn(actions, word)
}

async function list({ undelivered }: Files, { out }: Terminal): Promise<number> {
  const notes = await all(undelivered)
  for (const { event, failures, waiting } of notes) {
    const facts = [event.id, new Date(event.at).toISOString(), event.kind, event.record.head.id]
    out(`${facts.join('  ')}  ${waiting.join(',')}  tried ${failures} times\n`)
  }
  if (notes.length === 0) out('everything was delivered\n')
  return 0
}

async function retryAll(files: Files, { out }: Terminal): Promise<number> {
  const notes = await all(files.undelivered)
  for (const note of notes) await retry(note, files)
  out(
    `${notes.length} ${notes.length === 1 ? 'event is' : 'events are'} sent again within seconds by any running server\n`,
  )
  return 0
}

/** The note first: of two that there may be for a moment the servers see only this. */
async function retry(note: Note, { outbox, undelivered }: Files): Promise<void> {
  const { event, waiting, teller } = note
  const there = await outbox.get(event.id)
  const all = [...new Set([...(there?.waiting ?? []), ...waiting])]
  await outbox.put({ event, waiting: all, teller, failures: 0, notBefore: 0, isTrue: true })
  await undelivered.remove(event.id)
}

async function all(undelivered: FileOutbox): Promise<Note[]> {
  const notes = await Promise.all((await undelivered.list()).map((id) => undelivered.get(id)))
  return notes
    .filter((note) => note !== undefined)
    .sort((a, b) => a.event.at - b.event.at || a.event.kind.localeCompare(b.event.kind))
}

async function find(undelivered: FileOutbox, id: string, { err }: Terminal): Promise<Note | undefined> {
  const found = (await undelivered.list()).filter((each) => each.startsWith(id))
  const note = found.length === 1 ? await undelivered.get(found[0]!) : undefined
  if (note === undefined)
    err(found.length > 1 ? `${id} is the beginning of several ids\n` : `there is no such event: ${id}\n`)
  return note
}
