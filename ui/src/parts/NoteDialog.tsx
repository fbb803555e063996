import { type ReactNode, useState } from 'react';
import { Button } from 'react-aria-components/Button';
import { Dialog } from 'react-aria-components/Dialog';
import { Heading } from 'react-aria-components/Heading';
import { Modal, ModalOverlay } from 'react-aria-components/Modal';

import { ErrorMessage } from './Message';

interface Properties {
  title: string;
  /** What the button that submits says. */
  action: string;
  /** What was not done when `submit` throws, as a person reads it. */
  refused: string;
  isReady: boolean;
  submit: (note: string) => Promise<void>;
  onClose: () => void;
  children: ReactNode;
}

/** A form over the page that ends with a note; what its submitting throws is shown, and it stays open. */
export function NoteDialog({ title, action, refused, isReady, submit, onClose, children }: Properties) {
  const [note, setNote] = useState('');
  const [error, setError] = useState<unknown>(null);
  return (
    <ModalOverlay className="overlay" isOpen isDismissable onOpenChange={onClose}>
      <Modal className="dialog">
        <Dialog>
          <Heading slot="title">{title}</Heading>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              submit(note).catch(setError);
            }}
          >
            {children}
            <label>
              Note
              <textarea value={note} maxLength={4000} rows={3} onChange={(event) => setNote(event.target.value)} />
            </label>
            {error !== null && <ErrorMessage error={error} what={refused} />}
            <p className="actions">
              <Button type="submit" isDisabled={!isReady}>
                {action}
              </Button>
              <Button slot="close">Cancel</Button>
            </p>
          </form>
        </Dialog>
      </Modal>
    </ModalOverlay>
  );
}
