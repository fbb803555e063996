import { useInfiniteQuery } from '@tanstack/react-query';
import { Button } from 'react-aria-components/Button';

import { sentFiles } from '../api/sending';
import { ErrorMessage, Waiting } from './Message';

/** What became of each file of a job of sending that has ended. */
export function SentFiles({ job, failed }: { job: string; failed: boolean }) {
  const answer = useInfiniteQuery(sentFiles(job, failed));
  if (answer.isPending) return <Waiting what="Looking" />;
  if (answer.isError) return <ErrorMessage error={answer.error} what="What became of the files is not known" />;
  const files = answer.data.pages.flatMap((page) => page.files);
  return (
    <div className="sent-files" tabIndex={0} role="region" aria-label={failed ? 'Files that were not sent' : 'Files'}>
      <ul className="list">
        {files.map((file, index) => (
          <li key={index}>
            <span className="path">{file.image_id}</span>
            <span className={file.ok ? undefined : 'refused'}>
              {file.ok ? 'sent' : 'not sent'}
              {file.note && `: ${file.note}`}
            </span>
          </li>
        ))}
      </ul>
      {answer.hasNextPage && <Button onPress={() => void answer.fetchNextPage()}>Show more</Button>}
    </div>
  );
}
