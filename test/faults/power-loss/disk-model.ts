// What may be on a disk after a loss of power. Everything that changes has a history since it was last certain: each
// sector of a file, its size, each name in a folder. After a loss each of them is anything that it was in its history,
// and none knows of the others: writeback keeps no order, and a name says nothing about what it names.

import type { Inode, Made, Operation } from './recording-file-system.ts'

const sectorBytes = 512

/** One thing that is on the disk as it was at some moment since it was synced. */
export class History<T> {
  readonly of: 'name' | 'size' | 'sector'
  /** The certain value, then all since. */
  values: { readonly at: number; readonly value: T }[]
  #isDoubtful = false

  constructor(of: History<T>['of'], value: T) {
    this.of = of
    this.values = [{ at: -1, value }]
  }

  get newest(): T {
    return this.values.at(-1)!.value
  }

  add(value: T, at: number): void {
    this.values.push({ at, value })
    this.#isDoubtful = false
  }

  sync(began: number): void {
    if (this.#isDoubtful) return
    const covered = this.values.findLastIndex(({ at }) => at < began)
    if (covered > 0) this.values.splice(0, covered)
  }

  /** The system took what it could not write for written: only what is written anew can still be made certain. */
  failToSync(): void {
    this.#isDoubtful = this.values.length > 1
  }
}

interface File {
  readonly kind: 'file'
  readonly size: History<number>
  readonly sectors: Map<number, History<Buffer>>
}
interface Folder {
  readonly kind: 'folder'
  readonly names: Map<string, History<Inode | undefined>>
}
type Node = File | Folder | { readonly kind: 'link'; readonly target: string }

/** What is chosen of each history; the index of a value. */
export type Choice = (history: History<unknown>) => number

/** A file's bytes, a link's target, or a folder; by path. */
export type Tree = Map<string, Buffer | string | 'folder'>

export class Disk {
  readonly #nodes = new Map<Inode, Node>([[0, { kind: 'folder', names: new Map() }]])

  apply(operation: Operation, at: number): void {
    switch (operation.does) {
      case 'make':
        this.#nodes.set(operation.inode, newNode(operation.node))
        this.#name(operation.in, operation.name, operation.inode, at)
        break
      case 'remove':
        this.#name(operation.in, operation.name, undefined, at)
        break
      case 'write':
        this.#write(this.#file(operation.inode), operation.position, operation.bytes, at)
        break
      case 'truncate':
        this.#truncate(this.#file(operation.inode), operation.size, at)
        break
      case 'sync':
        for (const history of this.#historiesOf(operation.inode)) history.sync(operation.began)
        break
      case 'fail to sync':
        for (const history of this.#historiesOf(operation.inode)) history.failToSync()
    }
  }

  /** Everything that is not certain. */
  uncertain(): History<unknown>[] {
    const all = [...this.#nodes.keys()].flatMap((inode) => this.#historiesOf(inode))
    return all.filter((history) => history.values.length > 1)
  }

  tree(choose: Choice): Tree {
    const tree: Tree = new Map()
    const chosen = <T>(history: History<T>): T =>
      history.values.length === 1
        ? history.values[0]!.value
        : history.values[choose(history as History<unknown>)]!.value
    const visit = (folder: Folder, at: string) => {
      for (const [name, history] of folder.names) {
        const inode = chosen(history)
        if (inode === undefined) continue
        const node = this.#nodes.get(inode)!
        const file = at === '' ? name : `${at}/${name}`
        if (node.kind === 'link') tree.set(file, `-> ${node.target}`)
        else if (node.kind === 'folder') {
          tree.set(file, 'folder')
          visit(node, file)
        } else {
          const bytes = Buffer.alloc(chosen(node.size))
          for (const [sector, content] of node.sectors)
            if (sector * sectorBytes < bytes.length) chosen(content).copy(bytes, sector * sectorBytes)
          tree.set(file, bytes)
        }
      }
    }
    visit(this.#nodes.get(0) as Folder, '')
    return tree
  }

  #name(folder: Inode, name: string, inode: Inode | undefined, at: number): void {
    const { names } = this.#nodes.get(folder) as Folder
    if (!names.has(name)) names.set(name, new History<Inode | undefined>('name', undefined))
    names.get(name)!.add(inode, at)
  }

  #write(file: File, position: number, bytes: Buffer, at: number): void {
    const end = position + bytes.length
    for (let sector = Math.floor(position / sectorBytes); sector * sectorBytes < end; sector++) {
      const begin = sector * sectorBytes
      const before = file.sectors.get(sector) ?? new History('sector', Buffer.alloc(sectorBytes))
      file.sectors.set(sector, before)
      const content = Buffer.from(before.newest)
      const from = Math.max(begin, position)
      bytes.copy(content, from - begin, from - position, Math.min(begin + sectorBytes, end) - position)
      before.add(content, at)
    }
    if (end > file.size.newest) file.size.add(end, at)
  }

  #truncate(file: File, size: number, at: number): void {
    file.size.add(size, at)
    for (const [sector, history] of file.sectors) {
      const kept = size - sector * sectorBytes
      if (kept >= sectorBytes) continue
      history.add(Buffer.from(history.newest).fill(0, Math.max(0, kept)), at)
    }
  }

  #file(inode: Inode): File {
    return this.#nodes.get(inode) as File
  }

  #historiesOf(inode: Inode): History<unknown>[] {
    const node = this.#nodes.get(inode)
    if (node?.kind === 'folder') return [...node.names.values()] as History<unknown>[]
    if (node?.kind === 'file') return [node.size, ...node.sectors.values()] as History<unknown>[]
    return []
  }
}

function newNode(made: Made): Node {
  if (made.kind === 'link') return made
  if (made.kind === 'folder') return { kind: 'folder', names: new Map() }
  return { kind: 'file', size: new History('size', 0), sectors: new Map() }
}
