/**
 * `npm run bench`: Tidemark beside its peers, in one run on one machine. Case by case, round by round, every server is
 * started, warmed up, measured and stopped; the order moves on with each round, so that no server always comes first.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { byteCases } from './cases/bytes.ts'
import type { Case } from './cases/case.ts'
import { crowdCases } from './cases/crowds.ts'
import { operationCases } from './cases/operations.ts'
import { Folders, memoryFolder } from './folders.ts'
import { busyWarning, describeMachine } from './machine.ts'
import { measureOnce } from './measure.ts'
import { chosen, type Options, parseOptions, usage } from './options.ts'
import { type CaseInfo, type Failure, type Measurement, orderOf, replaceReport, tables } from './report.ts'
import { peers } from './servers/peers.ts'
import type { Server } from './servers/server.ts'
import { tidemarks } from './servers/tidemark.ts'

const allCases: readonly Case[] = [...byteCases, ...operationCases, ...crowdCases]
/** What `npm run bench` measures where nobody says otherwise; the others tell much the same, or take long. */
const mainCases = ['big', 'chunks-1m', 'download', 'small-4k-one', 'head', 'slow', 'take-over']
const allServers: readonly Server[] = [...tidemarks, ...peers]
const readme = fileURLToPath(new URL('README.md', import.meta.url))
const diskFolder = fileURLToPath(new URL('../.cache/bench', import.meta.url))

const folders = new Folders()
// Servers are children, which are killed first (test/support/child.ts); then nobody writes any more.
process.on('exit', () => folders.removeAll())
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
] as const) {
  process.on(signal, () => process.exit(code))
}

try {
  await main(process.argv.slice(2))
} catch (error) {
  process.stderr.write(`bench: ${error instanceof Error ? error.message : error}\n`)
  process.exitCode = 1
}

async function main(args: readonly string[]): Promise<void> {
  const options = parseOptions(args)
  if (options.help) return void process.stdout.write(usage)
  if (options.list) return void process.stdout.write(list())
  if (!existsSync('/proc/self/stat'))
    throw new Error('what processes use is read from /proc: this needs Linux')
  const cases = chosen(allCases, options.cases ?? (options.main ? mainCases : undefined))
  const remarks: string[] = []
  const servers = chosen(allServers, options.servers).filter((server) => {
    const reason = server.missing()
    if (reason !== undefined) remarks.push(`${server.title} was left out: ${reason}.`)
    return reason === undefined
  })
  const parents = chooseFolders(options, remarks)
  const busy = busyWarning()
  if (busy !== undefined) remarks.push(busy)

  const measurements: Measurement[] = []
  const failures: Failure[] = []
  for (const benchCase of cases) {
    const able = servers.filter((server) => benchCase.needs.every((need) => server.abilities.includes(need)))
    for (let round = 1; round <= options.rounds; round++) {
      for (const server of orderOf(able, round)) {
        const folder = folders.make(server.onDisk ? parents.disk : parents.usual)
        say(`${benchCase.name}, round ${round} of ${options.rounds}: ${server.title}`)
        try {
          const { scale, warmUp } = options
          measurements.push(await measureOnce({ server, benchCase, scale, warmUp, round, folder }))
        } catch (error) {
          const what = error instanceof Error ? error.message : String(error)
          failures.push({
            case: benchCase.name,
            server: server.name,
            round,
            error: what.replaceAll(/\s+/g, ' ').trim().slice(0, 300),
          })
          say(`failed: ${what}`)
        } finally {
          folders.remove(folder)
        }
      }
    }
  }

  const machine = describeMachine()
  const command = `npm run bench${args.length > 0 ? ` -- ${args.join(' ')}` : ''}`
  const versions = [...new Set(servers.flatMap((server) => server.version().split(', ')))]
  const head = [
    `Made ${new Date().toISOString().slice(0, 10)} by \`${command}\`, ${options.rounds} ${options.rounds === 1 ? 'round' : 'rounds'}.`,
    `${machine.cores} x ${machine.processor}, ${machine.memoryGiB} GiB; ${machine.system}; Node ${machine.node}.`,
    `${versions.join(', ')}.`,
    ...remarks,
  ]
  const results = { cases, servers, measurements, failures }
  const report = `${head.map((line) => `- ${line}\n`).join('')}\n${tables({ ...results, cases: cases.map(plain) })}`
  process.stdout.write(report)
  if (options.json !== undefined) {
    const content = {
      command,
      machine,
      versions,
      remarks,
      cases: cases.map(plain),
      servers,
      measurements,
      failures,
    }
    writeFileSync(options.json, `${JSON.stringify(content, null, 2)}\n`)
  }
  if (options.write) writeFileSync(readme, replaceReport(readFileSync(readme, 'utf8'), report))
  if (failures.length > 0) process.exitCode = 1
}

/** The folder for most servers, and the one on a disk for those that sync. */
function chooseFolders(options: Options, remarks: string[]): { usual: string; disk: string } {
  const disk = options.disk ?? diskFolder
  if (options.folder !== undefined) return { usual: options.folder, disk }
  // Eight uploads of a quarter each, the small ones of a few seconds, and what a server keeps twice.
  const found = memoryFolder(options.scale.bigBytes * 3 + 2 ** 30)
  if ('path' in found) return { usual: found.path, disk }
  remarks.push(`Files were kept on a disk, not in memory: ${found.reason}.`)
  return { usual: disk, disk }
}

function plain({ name, title, kind }: Case): CaseInfo {
  return { name, title, kind }
}

function list(): string {
  const line = ({ name, title }: { name: string; title: string }) => `  ${name.padEnd(16)}${title}\n`
  return `Cases\n${allCases.map(line).join('')}\nServers\n${allServers.map(line).join('')}`
}

function say(text: string): void {
  process.stderr.write(`${text}\n`)
}
