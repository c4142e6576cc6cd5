-- Whether a reply of legacy to a create gave out the id. What only follow-ups have shown may have been created at legacy
-- by a run of the engine. Of earlier rows it is not known.
ALTER TABLE legacy_instances ADD COLUMN created boolean NOT NULL DEFAULT false;
