/** What the server told this page, in <meta> tags that it filled when it served index.html. */
export interface PageSettings {
  /** Absolute URL of the tus endpoint. */
  endpoint: string
  maxSizeBytes: number | null
}

export function readSettings(): PageSettings {
  const maxSizeBytes = Number(metaContent('tidemark-max-size'))
  return {
    endpoint: new URL(metaContent('tidemark-endpoint') || '/files/', document.baseURI).href,
    maxSizeBytes: maxSizeBytes > 0 ? maxSizeBytes : null,
  }
}

function metaContent(name: string): string {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? ''
}
