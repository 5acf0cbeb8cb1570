-- What `snapring up` fills an embedded database with where no configuration names another.
CREATE TABLE teams (id int PRIMARY KEY, name text NOT NULL);
CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL, plan text NOT NULL DEFAULT 'free');
CREATE TABLE members (
    team_id int NOT NULL REFERENCES teams ON DELETE CASCADE,
    user_id int NOT NULL REFERENCES users ON DELETE CASCADE,
    PRIMARY KEY (team_id, user_id)
);
CREATE INDEX ON members (user_id);

INSERT INTO teams SELECT n, 'team ' || n FROM generate_series(1, 100) AS n;
INSERT INTO users SELECT n, 'user ' || n, (ARRAY['free', 'pro'])[1 + n % 2] FROM generate_series(1, 10000) AS n;
INSERT INTO members SELECT DISTINCT 1 + n * 37 % 100, n FROM generate_series(1, 10000) AS n;
INSERT INTO members SELECT DISTINCT 1 + n * 11 % 100, n FROM generate_series(1, 10000) AS n ON CONFLICT DO NOTHING;
ANALYZE;
