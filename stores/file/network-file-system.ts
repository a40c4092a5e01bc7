/** Tells file systems whose storage is another machine's from those that live and die with this one. */
import type { FileSystem } from './file-system.ts'

/** statfs types, from linux/magic.h and the file systems' own headers. */
const networkTypes = new Set([
  0x6969, // NFS
  0x517b, // SMB
  0xff534d42, // CIFS
  0xfe534d42, // SMB2
  0x00c36400, // Ceph
  0x65735546, // FUSE: GlusterFS, sshfs, virtiofs
  0x0bd00bd0, // Lustre
  0x47504653, // GPFS
  0x01021997, // 9P
  0x7461636f, // OCFS2
  0x01161970, // GFS2
])

export async function isNetworkFileSystem(fileSystem: FileSystem, folder: string): Promise<boolean> {
  const { type } = await fileSystem.statfs(folder)
  return networkTypes.has(type >>> 0)
}
