/** What the server told this page, in <meta> tags that it filled when it served index.html. */
export interface PageSettings {
  /** Absolute URL of the tus endpoint. */
  endpoint: string
  maxSizeBytes: number | null
  /** Whether finished uploads can be downloaded, so that links to them are of use. */
  canDownload: boolean
  /** Whether a cancelled upload may be deleted on the server. */
  canDelete: boolean
  /** Whether the server tells how far uploads are. */
  canFollow: boolean
  /** Whether the server asks who uploads. */
  needsToken: boolean
  /** Whether the server finishes uploads of what it has already, for those who say its digest. */
  isInstant: boolean
}

export function readSettings(): PageSettings {
  const disabled = metaContent('tidemark-disabled').split(' ')
  const maxSizeBytes = Number(metaContent('tidemark-max-size'))
  return {
    endpoint: new URL(metaContent('tidemark-endpoint') || '/files/', document.baseURI).href,
    maxSizeBytes: maxSizeBytes > 0 ? maxSizeBytes : null,
    canDownload: !disabled.includes('download'),
    canDelete: !disabled.includes('termination'),
    canFollow: !disabled.includes('progress'),
    needsToken: !['', 'none'].includes(metaContent('tidemark-auth')),
    isInstant: metaContent('tidemark-instant') === 'on',
  }
}

function metaContent(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? ''
}
